"""Networks written by hand for images, points and series; most are run under two tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks.pairs.fresh.written import Tensor, Written


class Autoencoder(Written):
    """The image autoencoder of latent diffusion: residual blocks, one attention in the middle of either half."""

    def __init__(self, names: str, *, width: int = 16, levels: int = 3, flat: bool = False) -> None:
        super().__init__()
        self.depth, self.d, self.levels, self.flat = 1, width, levels, flat
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        return (self._wide(self.levels - 1), self._wide(self.levels - 1), True)

    def _wide(self, level: int) -> int:
        return self.d if level == 0 else 2 * self.d

    def _ends(self, place: str) -> tuple[int, int]:
        """Channels into and out of a residual block."""
        half, level, block = place.split(".")[:3]
        top = self._wide(self.levels - 1)
        if level == "mid":
            return top, top
        n, out = int(level), self._wide(int(level))
        before = self._wide(max(n - 1, 0)) if half == "enc" else self._wide(min(n + 1, self.levels - 1))
        return (before if block == "0" else out), out

    def part(self, role: str) -> nn.Module | nn.Parameter:
        place, part = role.rsplit(".", 1)
        top = self._wide(self.levels - 1)
        if place == "mix":
            return nn.Conv2d(8, 8, 1) if part == "enc" else nn.Conv2d(4, 4, 1)
        if "." not in place:
            ends = {"enc.in": (3, self.d), "enc.out": (top, 8), "dec.in": (4, top), "dec.out": (self.d, 3)}
            return nn.GroupNorm(4, top if place == "enc" else self.d, 1e-6) if part == "norm" else _conv(*ends[role])
        if part in ("q", "k", "v", "o"):
            return nn.Linear(top, top) if self.flat else nn.Conv2d(top, top, 1)
        if part == "n":
            return nn.GroupNorm(4, top, 1e-6)
        if part == "scale":
            return _conv(self._wide(int(place.split(".")[1])), self._wide(int(place.split(".")[1])))
        have, want = self._ends(place)
        if part == "side":
            return nn.Conv2d(have, want, 1)
        if part in ("n1", "n2"):
            return nn.GroupNorm(4, have if part == "n1" else want, 1e-6)
        return _conv(have if part == "c1" else want, want)

    def forward(self, x: Tensor) -> Tensor:
        x = self.at["enc.in"](x)
        for n in range(self.levels):
            x = self._block(f"enc.{n}.0", x)
            if f"enc.{n}.scale" in self.at:
                x = self.at[f"enc.{n}.scale"](x)[..., ::2, ::2]
        x = self._middle("enc", x)
        x = self.at["mix.enc"](self.at["enc.out"](F.silu(self.at["enc.norm"](x))))[:, :4]
        x = self._middle("dec", self.at["dec.in"](self.at["mix.dec"](x)))
        for n in reversed(range(self.levels)):
            for block in range(2):
                x = self._block(f"dec.{n}.{block}", x)
            if f"dec.{n}.scale" in self.at:
                x = self.at[f"dec.{n}.scale"](F.interpolate(x, scale_factor=2.0))
        return self.at["dec.out"](F.silu(self.at["dec.norm"](x)))

    def _block(self, place: str, x: Tensor) -> Tensor:
        y = self.at[place + ".c1"](F.silu(self.at[place + ".n1"](x)))
        y = self.at[place + ".c2"](F.silu(self.at[place + ".n2"](y)))
        return y + (self.at[place + ".side"](x) if place + ".side" in self.at else x)

    def _middle(self, half: str, x: Tensor) -> Tensor:
        x = self._block(half + ".mid.0", x)
        y = self.at[half + ".mid.n"](x)
        q, k, v = (self._flat(f"{half}.mid.{part}", y).flatten(2).transpose(1, 2) for part in "qkv")
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return self._block(half + ".mid.1", x + self._flat(half + ".mid.o", y))

    def _flat(self, role: str, x: Tensor) -> Tensor:
        return self.at[role](x.movedim(1, -1)).movedim(-1, 1) if self.flat else self.at[role](x)


def _conv(have: int, want: int) -> nn.Conv2d:
    return nn.Conv2d(have, want, 3, padding=1)


class Points(Written):
    """PointNet: a transformation of the input, three layers a point, the largest over all points, a classifier."""

    def __init__(self, names: str, *, flat: bool = False) -> None:
        super().__init__()
        self.depth, self.flat = 1, flat
        self.build(names)

    def part(self, role: str) -> nn.Module | nn.Parameter:
        sizes = {
            "t1": (3, 16),
            "t2": (16, 32),
            "t3": (32, 64),
            "t4": (64, 32),
            "t5": (32, 16),
            "t6": (16, 9),
            "p1": (3, 16),
            "p2": (16, 32),
            "p3": (32, 64),
            "h1": (64, 32),
            "h2": (32, 16),
            "h3": (16, 10),
        }
        name, kind = role.split("_")
        have, want = sizes[name]
        if kind == "n":
            return nn.BatchNorm1d(want)
        on_points = name in ("t1", "t2", "t3", "p1", "p2", "p3")
        return nn.Conv1d(have, want, 1) if on_points and not self.flat else nn.Linear(have, want)

    def forward(self, x: Tensor) -> Tensor:
        turn = self._each("t", x).amax(2)
        for n in ("t4", "t5"):
            turn = F.relu(self.at[n + "_n"](self.at[n + "_w"](turn)))
        turn = self.at["t6_w"](turn).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        x = self._each("p", (x.transpose(1, 2) @ turn).transpose(1, 2)).amax(2)
        for n in ("h1", "h2"):
            x = F.relu(self.at[n + "_n"](self.at[n + "_w"](x)))
        return self.at["h3_w"](x)

    def _each(self, letter: str, x: Tensor) -> Tensor:
        for n in (1, 2, 3):
            layer = self.at[f"{letter}{n}_w"]
            x = layer(x.transpose(1, 2)).transpose(1, 2) if self.flat else layer(x)
            x = F.relu(self.at[f"{letter}{n}_n"](x))
        return x


class Graph(Written):
    """Two or three graph convolutions on a ring."""

    def __init__(self, names: str) -> None:
        super().__init__()
        self.depth = 1
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        return (24 if role == "g1" else 32, 7 if role == "g4" else 32, True)

    def part(self, role: str) -> nn.Module | nn.Parameter:
        return nn.Linear(*self.width(role))

    def forward(self, x: Tensor) -> Tensor:
        for n in range(1, 5):
            x = self.at[f"g{n}"](0.5 * x + 0.3 * x.roll(1, 1) + 0.2 * x.roll(-2, 1))
            x = F.relu(x) if n < 4 else x
        return x


class Dilated(nn.Module):
    """A temporal network with weight norm: old and new clothes, layers reachable by one name or by two."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], *, twice: bool) -> None:
        super().__init__()
        self.network = nn.Sequential()
        for n, (have, want) in enumerate(((3, 16), (16, 16), (16, 16), (16, 24))):
            block = nn.Module()
            first, second = (norm(nn.Conv1d(a, want, 3, padding=2 << n, dilation=1 << n)) for a in (have, want))
            if twice:
                block.conv1, block.conv2 = first, second
                block.net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
            else:
                block.first, block.second = first, second
            if have != want:
                name = "downsample" if twice else "match"
                setattr(block, name, nn.Conv1d(have, want, 1))
            self.network.append(block)
        setattr(self, "linear" if twice else "head", nn.Linear(24, 10))
        self.twice = twice

    def forward(self, x: Tensor) -> Tensor:
        for block in self.network:
            length = x.shape[-1]
            names = ("conv1", "conv2", "downsample") if self.twice else ("first", "second", "match")
            first, second, side = (getattr(block, name, None) for name in names)
            assert first is not None
            assert second is not None
            y = F.relu(second(F.relu(first(x)[..., :length]))[..., :length])
            x = F.relu(y + (x if side is None else side(x)))
        last: Tensor = (self.linear if self.twice else self.head)(x[..., -1])  # type: ignore[operator]
        return last


class Gated(nn.Module):
    """A GRU with a Linear a gate, or all gates in one turned matrix; and an LSTM likewise."""

    def __init__(
        self, kind: str, style: str, depth: int = 2, words: int = 50, width: int = 24, hidden: int = 32
    ) -> None:
        super().__init__()
        self.kind, self.style, self.hidden = kind, style, hidden
        self.gates = ("reset", "update", "new") if kind == "GRU" else ("input", "forget", "cell", "output")
        self.lookup = nn.Embedding(words, width)
        self.cells = nn.ModuleList()
        for n in range(depth):
            cell, have = nn.Module(), width if n == 0 else hidden
            if style == "apart":
                for gate in self.gates:
                    setattr(cell, f"{gate}_x", nn.Linear(have, hidden))
                    setattr(cell, f"{gate}_h", nn.Linear(hidden, hidden))
            else:
                size = len(self.gates) * hidden
                cell.kernel, cell.recurrent = (nn.Parameter(torch.zeros(each, size)) for each in (have, hidden))
                cell.kernel_bias, cell.recurrent_bias = (nn.Parameter(torch.zeros(size)) for _ in range(2))
            self.cells.append(cell)
        self.readout = nn.Linear(hidden, 7)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.lookup(ids)
        for cell in self.cells:
            h = c = x.new_zeros(x.shape[0], self.hidden)
            found = []
            for step in x.unbind(1):
                a, b = self._both(cell, step, h)
                if self.kind == "GRU":
                    r, z = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
                    h = (1 - z) * torch.tanh(a[2] + r * b[2]) + z * h
                else:
                    i, f, g, o = (x + y for x, y in zip(a, b, strict=True))
                    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                    h = torch.sigmoid(o) * torch.tanh(c)
                found.append(h)
            x = torch.stack(found, 1)
        last: Tensor = self.readout(x)
        return last

    def _both(self, cell: nn.Module, x: Tensor, h: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if self.style == "apart":
            return [getattr(cell, g + "_x")(x) for g in self.gates], [getattr(cell, g + "_h")(h) for g in self.gates]
        parts = len(self.gates)
        kernel, recurrent = cell.get_parameter("kernel"), cell.get_parameter("recurrent")
        a = x @ kernel + cell.get_parameter("kernel_bias")
        b = h @ recurrent + cell.get_parameter("recurrent_bias")
        return list(a.chunk(parts, -1)), list(b.chunk(parts, -1))


class Stack(nn.Module):
    """Embedding, torch's own recurrent layers, a head."""

    def __init__(self, kind: str, depth: int = 2, words: int = 50, width: int = 24, hidden: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.rnn = getattr(nn, kind)(width, hidden, depth, batch_first=True)
        self.fc = nn.Linear(hidden, 7)

    def forward(self, ids: Tensor) -> Tensor:
        last: Tensor = self.fc(self.rnn(self.embedding(ids))[0])
        return last
