"""Plain stacks, dense blocks and U-Nets: their parts, and how engineers name them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.pairs.styles.parts import Form, Part, Row, at, row, within
from benchmarks.pairs.styles.residuals import CLASSIFIERS, STEMS

# plain ---------------------------------------------------------------------------------------------------------------

# Convolution and norm; s stage, b place in it, n place in all; c and m are the places in one Sequential with
# activations, norms and pooling between, t in a Sequential of the stage.
PLAIN = (
    ("features.{c}", "features.{m}"), ("features.{c}", "features.{m}"), ("conv{s:+1}_{b:+1}", "bn{s:+1}_{b:+1}"),
    ("conv{n:+1}", "bn{n:+1}"), ("block{s:+1}.conv{b:+1}", "block{s:+1}.bn{b:+1}"), ("convs.{n}", "bns.{n}"),
    ("features.stage{s:+1}.unit{b:+1}.conv", "features.stage{s:+1}.unit{b:+1}.bn"), ("layers.{n}.0", "layers.{n}.1"),
    ("layers.{n}.conv", "layers.{n}.norm"), ("stages.{s}.{b}.conv", "stages.{s}.{b}.bn"),
    ("encoder.stage_{s:+1}.conv_{b:+1}", "encoder.stage_{s:+1}.norm_{b:+1}"), ("block{s:+1}.{t}", "block{s:+1}.{u}"),
)  # fmt: skip
LINEARS = (  # of the classifier, with activations and dropout between them or without
    "classifier.{l:*3}", "classifier.{l:*2}", "fc{l:+6}", "fc{l:+1}", "output.fc{l:+1}", "head.{l:*2+1}", "dense.{l}",
)  # fmt: skip


def plain(dice: Random) -> list[Part]:
    """Convolutions one after another, some stages of one width, and a few linear layers."""
    has_norm, width = dice.random() < 0.6, dice.choice((8, 16))
    depths = [dice.choice((1, 2, 3, 4)) for _ in range(dice.choice((2, 3, 5)))]
    step = 3 if has_norm else 2
    parts, inputs, n, place = [], 3, 0, 0
    for s, depth in enumerate(depths):
        outputs = width * min(2**s, 4)
        for b in range(depth):
            here = at(s=s, b=b, n=n, c=place, m=place + 1, t=b * step, u=b * step + 1)
            parts.append(Part("conv", (outputs, inputs, 3, 3), here))
            if has_norm:
                parts.append(Part("norm", (outputs,), here, "batch"))
            inputs, n, place = outputs, n + 1, place + step
        place += 1  # the pooling behind the stage
    hidden = dice.choice((32, 4 * inputs))
    sizes = [4 * inputs, *[hidden] * dice.choice((0, 1, 2, 2)), 10]
    linears = zip(sizes[1:], sizes[:-1], strict=True)
    return parts + [Part("linear", shape, at(l=place)) for place, shape in enumerate(linears)]


def plain_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    conv, norm = dice.choice(PLAIN)
    return within("", (conv, "conv"), (norm, "norm"), (dice.choice(LINEARS), "linear"))


# dense ---------------------------------------------------------------------------------------------------------------

DENSE = (  # a layer, with norm i and convolution i in it, and the transition behind a block with its two
    ("features.denseblock{s:+1}.denselayer{b:+1}", "norm{i:+1}", "conv{i:+1}", "features.transition{s:+1}", "norm",
     "conv"),
    ("features.stage{s:+1}.unit{b:+1}", "conv{i:+1}.bn", "conv{i:+1}.conv", "features.stage{s:+2}.trans{s:+2}",
     "conv.bn", "conv.conv"),
    ("blocks.{s}.layers.{b}", "bn{i:+1}", "conv{i:+1}", "transitions.{s}", "bn", "conv"),
    ("dense{s:+1}.{b}", "bn{i:+1}", "conv{i:+1}", "trans{s:+1}", "bn1", "conv1"),
    ("block{s:+1}.layer.{b}", "bn{i:+1}", "conv{i:+1}", "trans{s:+1}", "bn1", "conv1"),
    ("features.{s:*2+1}.{b}.net", "{i:*3}", "{i:*3+2}", "features.{s:*2+2}", "0", "2"),
    ("encoder.dense_blocks.{s}.{b}", "layers.{i}.norm", "layers.{i}.conv", "encoder.downs.{s}", "norm", "conv"),
)  # fmt: skip
DENSE_ENDS = ("features.norm5", "features.post_activ.bn", "bn", "norm", "final_norm", "encoder.last_norm")
DENSE_STEMS = (("features.conv0", "features.norm0"), ("conv1", "bn1"), ("stem.conv", "stem.norm"), *STEMS)


def dense(dice: Random) -> list[Part]:
    """Blocks in which every layer adds channels to all before it, with a transition between two blocks."""
    growth, width = dice.choice((4, 8)), dice.choice((8, 16))
    depths = [dice.choice((2, 3, 4)) for _ in range(dice.choice((2, 3)))]
    squeezed = growth * dice.choice((2, 4))
    parts = [Part("stem", (width, 3, 7, 7), has_bias=False), Part("stem_norm", (width,), kind="batch")]
    for s, depth in enumerate(depths):
        for b in range(depth):
            for i, (outputs, inputs, size) in enumerate(((squeezed, width, 1), (growth, squeezed, 3))):
                here = at(s=s, b=b, i=i)
                parts.append(Part("norm", (inputs,), here, "batch"))
                parts.append(Part("conv", (outputs, inputs, size, size), here, has_bias=False))
            width += growth
        if s + 1 < len(depths):
            parts.append(Part("trans_norm", (width,), at(s=s), "batch"))
            parts.append(Part("trans", (width // 2, width, 1, 1), at(s=s), has_bias=False))
            width //= 2
    return [*parts, Part("last_norm", (width,), kind="batch"), Part("head", (10, width))]


def dense_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    block, norm, conv, transition, trans_norm, trans = dice.choice(DENSE)
    stem, stem_norm = dice.choice(DENSE_STEMS)
    return [
        *within("", (stem, "stem"), (stem_norm, "stem_norm")),
        *within(block, (norm, "norm"), (conv, "conv")),
        *within(transition, (trans_norm, "trans_norm"), (trans, "trans")),
        *within("", (dice.choice(DENSE_ENDS), "last_norm"), (dice.choice(CLASSIFIERS), "head")),
    ]


# U-Net ---------------------------------------------------------------------------------------------------------------

# The first level, the others going down, the lowest, and the levels going up with what makes them larger.
# n counts levels as they are computed, v names a level by its height, lowest 0.
LEVELS = (
    ("inc", "down{n}.maxpool_conv.1", "down{n}.maxpool_conv.1", "up{n:+1}.conv", "up{n:+1}.up"),
    ("encoder{n:+1}", "encoder{n:+1}", "bottleneck", "decoder{v}", "upconv{v}"),
    ("downs.{n}", "downs.{n}", "bottleneck", "ups.{n:*2+1}", "ups.{n:*2}"),
    ("down_blocks.{n}", "down_blocks.{n}", "mid_block", "up_blocks.{n}", "up_blocks.{n}.upsample"),
    ("encoder.{n}", "encoder.{n}", "middle", "decoder.{n}", "upsamplers.{n}"),
    ("enc{n:+1}", "enc{n:+1}", "center", "dec{v}", "up{v}"),
    ("contract.{n}", "contract.{n}", "bottom", "expand.{n}.convs", "expand.{n}.up"),
    ("conv_down{n:+1}", "conv_down{n:+1}", "conv_mid", "conv_up{v}", "up{v}"),
)
DOUBLE = (  # convolution i of a level and its norm
    ("double_conv.{i:*3}", "double_conv.{i:*3+1}"), ("conv{i:+1}", "bn{i:+1}"), ("conv.{i:*3}", "conv.{i:*3+1}"),
    ("conv{i:+1}", "norm{i:+1}"), ("block.{i}.conv", "block.{i}.norm"), ("{i:*3}", "{i:*3+1}"),
    ("layers.{i}.0", "layers.{i}.1"),
)  # fmt: skip
OUTS = ("outc.conv", "conv", "final_conv", "out", "head", "segmentation_head.0", "conv_last")


def unet(dice: Random) -> list[Part]:
    """Levels of two convolutions down and up again, each upward one fed by its neighbour across."""
    depth, width = dice.choice((2, 3, 4)), dice.choice((8, 16))
    norm: Form | None = dice.choice(("batch", "batch", "norm", None))
    widths = [width * 2**n for n in range(depth)]
    if dice.random() < 0.15:
        widths = [width] * depth
    lowest = widths[-1] * (1 if widths[0] == widths[-1] else 2)
    parts: list[Part] = []

    def level(role: str, inputs: int, outputs: int, **numbers: int) -> None:
        for i, columns in enumerate((inputs, outputs)):
            parts.append(Part(role, (outputs, columns, 3, 3), at(**numbers, i=i), has_bias=norm is None))
            if norm:
                parts.append(Part(f"{role}_norm", (outputs,), at(**numbers, i=i), norm))

    inputs = 3
    for n, outputs in enumerate(widths):
        level("down" if n else "first", inputs, outputs, n=n)
        inputs = outputs
    level("lowest", inputs, lowest, n=depth)
    inputs = lowest
    for n, outputs in enumerate(reversed(widths)):
        numbers = {"n": n, "v": depth - n}
        parts.append(Part("up", (inputs, outputs, 2, 2), at(**numbers), outputs=outputs))  # a transposed convolution
        level("back", 2 * outputs, outputs, **numbers)
        inputs = outputs
    return [*parts, Part("out", (2, inputs, 1, 1))]


def unet_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    *levels, up = dice.choice(LEVELS)
    conv, norm = dice.choice(DOUBLE)
    rows = [row(up, "up")]
    for container, role in zip(levels, ("first", "down", "lowest", "back"), strict=True):
        rows += within(container, (conv, role), (norm, f"{role}_norm"))
    return [*rows, row(dice.choice(OUTS), "out")]
