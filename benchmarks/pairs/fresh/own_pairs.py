"""Two hand-written implementations each, or one beside a library's."""

from __future__ import annotations

from typing import Any

import torch
from core import Impl, cvi, duo  # type: ignore[import-not-found]  # the folder's own
from torch import nn
from torch.nn.utils import parametrizations

from benchmarks.pairs.fresh.kit import BN5, images, numbers, own, tokens
from benchmarks.pairs.fresh.shapes import Autoencoder, Dilated, Gated, Graph, Points, Stack
from benchmarks.pairs.fresh.tables import table

# ------------------------------------------------- the autoencoder of latent diffusion: levels counted from either end
_LEVELS = 3
_RESIDUAL = """
    {0}.norm1.@    {1}.n1.@
    {0}.conv1.@    {1}.c1.@
    {0}.norm2.@    {1}.n2.@
    {0}.conv2.@    {1}.c2.@
"""


def _autoencoder(
    level: dict[str, str],
    scale: dict[str, str],
    side: str,
    middle: tuple[str, str],
    attention: str,
    ends: str,
    back: bool,
) -> str:
    lines = [ends]
    for half in ("enc", "dec"):
        for n in range(_LEVELS) if half == "enc" or not back else reversed(range(_LEVELS)):
            shown = _LEVELS - 1 - n if half == "dec" and not back else n
            for block in range(1 if half == "enc" else 2):
                place = level[half].format(shown, block)
                lines.append(_RESIDUAL.format(place, f"{half}.{n}.{block}"))
                changes = (half == "enc" and n == 1) or (half == "dec" and n == 0 and block == 0)
                if changes:
                    lines.append(f"{place}.{side}.@    {half}.{n}.{block}.side.@")
            if (half == "enc" and n < _LEVELS - 1) or (half == "dec" and n > 0):
                lines.append(f"{scale[half].format(shown)}.@    {half}.{n}.scale.@")
        for n, place in enumerate(middle):
            full = {"enc": "encoder", "dec": "decoder"}[half]
            lines.append(_RESIDUAL.format(place.format(full), f"{half}.mid.{n}"))
        lines.append(attention.format({"enc": "encoder", "dec": "decoder"}[half], half + ".mid"))
    return "\n".join(lines)


COMPVIS = _autoencoder(
    {"enc": "encoder.down.{0}.block.{1}", "dec": "decoder.up.{0}.block.{1}"},
    {"enc": "encoder.down.{0}.downsample.conv", "dec": "decoder.up.{0}.upsample.conv"},
    "nin_shortcut",
    ("{0}.mid.block_1", "{0}.mid.block_2"),
    """
    {0}.mid.attn_1.norm.@      {1}.n.@
    {0}.mid.attn_1.q.@         {1}.q.@
    {0}.mid.attn_1.k.@         {1}.k.@
    {0}.mid.attn_1.v.@         {1}.v.@
    {0}.mid.attn_1.proj_out.@  {1}.o.@
    """,
    """
    encoder.conv_in.@    enc.in.@
    encoder.norm_out.@   enc.norm.@
    encoder.conv_out.@   enc.out.@
    decoder.conv_in.@    dec.in.@
    decoder.norm_out.@   dec.norm.@
    decoder.conv_out.@   dec.out.@
    quant_conv.@         mix.enc.@
    post_quant_conv.@    mix.dec.@
    """,
    back=True,
)
DIFFUSERS = _autoencoder(
    {"enc": "encoder.down_blocks.{0}.resnets.{1}", "dec": "decoder.up_blocks.{0}.resnets.{1}"},
    {"enc": "encoder.down_blocks.{0}.downsamplers.0.conv", "dec": "decoder.up_blocks.{0}.upsamplers.0.conv"},
    "conv_shortcut",
    ("{0}.mid_block.resnets.0", "{0}.mid_block.resnets.1"),
    """
    {0}.mid_block.attentions.0.group_norm.@    {1}.n.@
    {0}.mid_block.attentions.0.to_q.@          {1}.q.@
    {0}.mid_block.attentions.0.to_k.@          {1}.k.@
    {0}.mid_block.attentions.0.to_v.@          {1}.v.@
    {0}.mid_block.attentions.0.to_out.0.@      {1}.o.@
    """,
    """
    encoder.conv_in.@          enc.in.@
    encoder.conv_norm_out.@    enc.norm.@
    encoder.conv_out.@         enc.out.@
    decoder.conv_in.@          dec.in.@
    decoder.conv_norm_out.@    dec.norm.@
    decoder.conv_out.@         dec.out.@
    quant_conv.@               mix.enc.@
    post_quant_conv.@          mix.dec.@
    """,
    back=False,
)
duo(
    "latent autoencoder",
    "autoencoder kl",
    own(Autoencoder, COMPVIS),
    own(Autoencoder, DIFFUSERS, flat=True),
    images(32),
    na="compvis",
    nb="diffusers",
)

# ------------------------------------------------------------------------------------------------------- PointNet
_CONV = {"t1": "stn.{}1", "t2": "stn.{}2", "t3": "stn.{}3", "p1": "feat.{}1", "p2": "feat.{}2", "p3": "feat.{}3"}
_FULL = {"t4": ("stn.fc1", "stn.bn4"), "t5": ("stn.fc2", "stn.bn5"), "t6": ("stn.fc3", ""),
         "h1": ("fc1", "bn1"), "h2": ("fc2", "bn2"), "h3": ("fc3", "")}  # fmt: skip
_FLAT = {"t1": "transform.mlp.0", "t2": "transform.mlp.3", "t3": "transform.mlp.6", "t4": "transform.head.0",
         "t5": "transform.head.3", "t6": "transform.head.6", "p1": "mlp.0", "p2": "mlp.3", "p3": "mlp.6",
         "h1": "classifier.0", "h2": "classifier.3", "h3": "classifier.6"}  # fmt: skip


def _points(names: dict[str, tuple[str, str]]) -> str:
    layers = (
        f"{weight}.@  {part}_w.@\n" + (f"{norm}.@  {part}_n.@\n" if norm else "")
        for part, (weight, norm) in names.items()
    )
    return "".join(layers)


def _next(name: str) -> str:
    *above, number = name.split(".")
    return ".".join([*above, str(int(number) + 1)])


POINTS_CONV = _points({**{part: (at.format("conv"), at.format("bn")) for part, at in _CONV.items()}, **_FULL})
POINTS_FLAT = _points({part: (at, "" if part in ("t6", "h3") else _next(at)) for part, at in _FLAT.items()})
duo(
    "pointnet",
    "pointnet",
    own(Points, POINTS_CONV),
    own(Points, POINTS_FLAT, flat=True),
    numbers(4, 3, 20),
    na="conv",
    nb="linear",
)

# ---------------------------------------------------------------------------- graphs: one matrix stored inputs first
duo(
    "gcn",
    "gcn",
    own(Graph, "".join(f"gc{n}.@    T|g{n}.@\n" for n in range(1, 5))),
    own(Graph, "".join(f"conv{n}.lin.weight    g{n}.weight\nconv{n}.bias    g{n}.bias\n" for n in range(1, 5))),
    numbers(2, 9, 24),
    na="turned",
    nb="lin",
)

# ----------------------------------------------------------------- weight norm, old and new, and one layer by two names
TCN_TWICE = """
    network.#.conv1.bias         #.1.bias
    network.#.conv1.weight_g     #.1.g
    network.#.conv1.weight_v     #.1.v
    network.#.conv2.bias         #.2.bias
    network.#.conv2.weight_g     #.2.g
    network.#.conv2.weight_v     #.2.v
    network.#.net.0.bias         #.1.bias
    network.#.net.0.weight_g     #.1.g
    network.#.net.0.weight_v     #.1.v
    network.#.net.2.bias         #.2.bias
    network.#.net.2.weight_g     #.2.g
    network.#.net.2.weight_v     #.2.v
    network.#.downsample.@       #.side.@
    linear.@                     head.@
"""
TCN_NEW = """
    network.#.first.bias                                  #.1.bias
    network.#.first.parametrizations.weight.original0     #.1.g
    network.#.first.parametrizations.weight.original1     #.1.v
    network.#.second.bias                                 #.2.bias
    network.#.second.parametrizations.weight.original0    #.2.g
    network.#.second.parametrizations.weight.original1    #.2.v
    network.#.match.@                                     #.side.@
    head.@                                                head.@
"""
duo(
    "tcn",
    "tcn",
    Impl("own", lambda: Dilated(torch.nn.utils.weight_norm, twice=True), table(TCN_TWICE), label="hand-written"),
    Impl("own", lambda: Dilated(parametrizations.weight_norm, twice=False), table(TCN_NEW), label="hand-written"),
    numbers(2, 3, 30),
    na="twice",
    nb="new",
)


# ------------------------------------------------------------------------------------ gates apart, or in one matrix
def _gates(gates: tuple[str, ...], style: str) -> str:
    tail = "    lookup.@    embed.@\n    readout.@    head.@\n"
    if style == "apart":
        return "".join(f"    cells.#.{gate}_{way}.@    #.{gate}_{way}.@\n" for gate in gates for way in "xh") + tail
    return (
        "".join(
            f"    cells.#.{name}    {op}#.{{{','.join(f'{gate}_{way}' for gate in gates)}}}.{leaf}\n"
            for name, op, way, leaf in (
                ("kernel", "T|", "x", "weight"),
                ("recurrent", "T|", "h", "weight"),
                ("kernel_bias", "", "x", "bias"),
                ("recurrent_bias", "", "h", "bias"),
            )
        )
        + tail
    )


def _torch(gates: tuple[str, ...]) -> str:
    return (
        "".join(
            f"    rnn.{leaf}_{long}_l#    #.{{{','.join(f'{gate}_{way}' for gate in gates)}}}.{leaf}\n"
            for leaf in ("weight", "bias")
            for long, way in (("ih", "x"), ("hh", "h"))
        )
        + "    embedding.@    embed.@\n    fc.@    head.@\n"
    )


for kind, gates in (("GRU", ("reset", "update", "new")), ("LSTM", ("input", "forget", "cell", "output"))):
    for style in ("apart", "turned"):
        duo(
            f"{kind.lower()} {style}",
            f"gates {style}",
            Impl("own", lambda kind=kind: Stack(kind), table(_torch(gates)), label="torch.nn"),
            Impl(
                "own", lambda kind=kind, style=style: Gated(kind, style), table(_gates(gates, style)), label="by hand"
            ),
            tokens(50),
            nb=style,
        )


# ----------------------------------------------------------------------------- small networks for small images
class Cifar(nn.Module):
    """A residual network for small images, with the usual names of blog posts."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before = before
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        if not before:
            self.bn1 = nn.BatchNorm2d(16)
        for n, (have, want) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [self._block(have if b == 0 else want, want) for b in range(3)]
            setattr(self, f"layer{n}", nn.Sequential(*blocks))
        if before:
            self.bn = nn.BatchNorm2d(64)
        self.linear = nn.Linear(64, 10)

    def _block(self, have: int, want: int) -> nn.Module:
        block = nn.Module()
        stride = 1 if have == want else 2
        block.bn1 = nn.BatchNorm2d(have if self.before else want)
        block.conv1 = nn.Conv2d(have, want, 3, stride, 1, bias=False)
        block.bn2, block.conv2 = nn.BatchNorm2d(want), nn.Conv2d(want, want, 3, 1, 1, bias=False)
        if have != want:
            side: list[nn.Module] = [nn.Conv2d(have, want, 1, 2, bias=False)]
            block.shortcut = nn.Sequential(*side, *([] if self.before else [nn.BatchNorm2d(want)]))
        return block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x) if self.before else torch.relu(self.bn1(self.conv1(x)))
        for block in (*self.layer1, *self.layer2, *self.layer3):  # type: ignore[misc]
            x = self._run(block, x)
        x = torch.relu(self.bn(x)) if self.before else x
        found: torch.Tensor = self.linear(x.mean((2, 3)))
        return found

    def _run(self, block: Any, x: torch.Tensor) -> torch.Tensor:
        if self.before:
            y = torch.relu(block.bn1(x))
            side = block.shortcut(y) if hasattr(block, "shortcut") else x
            return side + block.conv2(torch.relu(block.bn2(block.conv1(y))))  # type: ignore[no-any-return]
        side = block.shortcut(x) if hasattr(block, "shortcut") else x
        y = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        return torch.relu(y + side)


CIFAR = """
    conv1.weight                    stem.weight
    bn1.@                           stem.n.@
    layer#.#.conv1.weight           #.#.c1
    layer#.#.conv2.weight           #.#.c2
    layer#.#.bn1.@                  #.#.n1.@
    layer#.#.bn2.@                  #.#.n2.@
    layer#.#.shortcut.0.weight      #.#.side
    layer#.#.shortcut.1.@           #.#.sn.@
    bn.@                            last.@
    linear.@                        head.@
"""
CV_CIFAR = """
    features.init_block.conv.weight                    stem.weight
    features.init_block.weight                         stem.weight
    features.init_block.bn.@                           stem.n.@
    features.stage#.unit#.body.conv1.conv.weight       #.#-1.c1
    features.stage#.unit#.body.conv1.bn.@              #.#-1.n1.@
    features.stage#.unit#.body.conv2.conv.weight       #.#-1.c2
    features.stage#.unit#.body.conv2.bn.@              #.#-1.n2.@
    features.stage#.unit#.identity_conv.conv.weight    #.#-1.side
    features.stage#.unit#.identity_conv.bn.@           #.#-1.sn.@
    features.stage#.unit#.identity_conv.weight         #.#-1.side
    features.post_activ.bn.@                           last.@
    output.@                                           head.@
"""
for before, name in ((False, "resnet20_cifar10"), (True, "preresnet20_cifar10")):
    duo(
        name,
        "cifar",
        cvi(name, table(CV_CIFAR)),
        Impl("own", lambda before=before: Cifar(before), table(CIFAR), label="by hand"),
        images(32),
        fix=BN5,
    )
