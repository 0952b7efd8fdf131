"""Decoders, hand-written: one way to compute them, many ways to name, join, turn and store their parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks.pairs.fresh.written import Tensor, Written, by_head


class Decoder(Written):
    """Pre-norm blocks: learned, rotary or no positions; plain or gated; any number of key heads; experts."""

    def __init__(
        self,
        names: str,
        *,
        depth: int = 4,
        width: int = 48,
        heads: int = 3,
        key_heads: int = 0,
        hidden: int = 0,
        words: int = 100,
        places: int = 32,
        bias: bool = True,
        biased: str = "",
        rms: bool = False,
        eps: float = 1e-5,
        gated: bool = False,
        activation: str = "tanh",
        parallel: bool = False,
        rotary: str = "",
        scaled: bool = True,
        experts: int = 0,
        shift: int = 0,
        turn: int = 0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.depth, self.d, self.heads, self.key_heads = depth, width, heads, key_heads or heads
        self.hidden, self.many, self.far, self.shift = hidden or 4 * width, words, places, shift
        self.bias, self.biased, self.rms, self.eps = bias, biased.split(), rms, eps
        self.gated, self.activation, self.parallel, self.rotary = gated, activation, parallel, rotary
        self.scaled, self.experts, self.turn, self.tied = scaled, experts, turn, tied
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        part = role.rsplit(".", 1)[-1]
        rows, keys = self.d, self.d // self.heads * self.key_heads
        sizes = {
            "q": (rows, rows),
            "k": (rows, keys),
            "v": (rows, keys),
            "o": (rows, rows),
            "up": (rows, self.hidden),
            "gate": (rows, self.hidden),
            "down": (self.hidden, rows),
            "router": (rows, self.experts),
            "head": (rows, self.many),
        }
        bias = (self.bias and part not in ("head", "router")) if not self.biased else part in self.biased
        return (*sizes[part], bias)

    def part(self, role: str) -> nn.Module | nn.Parameter:
        part = role.rsplit(".", 1)[-1]
        if part == "tok":
            return nn.Embedding(self.many, self.d)
        if part == "pos":
            return nn.Embedding(self.far + self.shift, self.d)
        if part in ("n1", "n2", "nf", "ne"):
            return nn.RMSNorm(self.d, eps=self.eps) if self.rms else nn.LayerNorm(self.d, eps=self.eps)
        if part in ("gate_up", "downs"):
            size = (2 * self.hidden, self.d) if part == "gate_up" else (self.d, self.hidden)
            return nn.Parameter(torch.zeros(self.experts, *size))
        return nn.Linear(*self.width(role))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.at["tok"](ids)
        if "pos" in self.at:
            x = x + self.at["pos"](torch.arange(ids.shape[1]) + self.shift)
        if "ne" in self.at:
            x = self.at["ne"](x)
        for n in range(self.depth):
            attended = self.attend(n, self.at[f"{n}.n1"](x))
            if self.parallel:
                norm = self.at.get(f"{n}.n2", self.at[f"{n}.n1"])
                x = x + attended + self.feed(f"{n}", norm(x))
            else:
                x = x + attended
                x = x + self.feed(f"{n}", self.at[f"{n}.n2"](x))
        x = self.at["nf"](x)
        if self.tied:
            words = self.known["tok",]
            assert isinstance(words, nn.Embedding)
            return F.linear(x, words.weight)
        return self.at["head"](x) if "head" in self.at else x

    def attend(self, n: int, x: Tensor) -> Tensor:
        q, k, v = (by_head(self.at[f"{n}.{part}"](x), self.d // self.heads) for part in "qkv")
        if self.rotary:
            q, k = turned(q, self.rotary, self.turn), turned(k, self.rotary, self.turn)
        k, v = (each.repeat_interleave(self.heads // self.key_heads, 1) for each in (k, v))
        scores = q @ k.transpose(-1, -2) * ((self.d // self.heads) ** -0.5 if self.scaled else 1.0)
        length = x.shape[1]
        if self.rotary == "" and "pos" not in self.at:
            scores = scores + slopes(self.heads, length).to(x)
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.at[f"{n}.o"](mixed)

    def feed(self, n: str, x: Tensor) -> Tensor:
        if self.experts:
            return self.routed(n, x)
        if self.gated:
            return self.at[f"{n}.down"](F.silu(self.at[f"{n}.gate"](x)) * self.at[f"{n}.up"](x))
        return self.at[f"{n}.down"](self.act(self.at[f"{n}.up"](x)))

    def routed(self, n: str, x: Tensor) -> Tensor:
        chances = self.at[f"{n}.router"](x).softmax(-1)
        best, which = chances.topk(2, -1)
        best = best / best.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for e in range(self.experts):
            share = (best * (which == e)).sum(-1, keepdim=True)
            hidden = F.silu(self.at[f"{n}.{e}.gate"](x)) * self.at[f"{n}.{e}.up"](x)
            out = out + share * self.at[f"{n}.{e}.down"](hidden)
        return out

    def act(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.activation == "relu" else F.gelu(x, approximate=self.activation)


def turned(x: Tensor, how: str, part: int = 0) -> Tensor:
    """Rotary positions on the first `part` of each head: "halves" as in transformers, "neighbours" as in the paper."""
    size = part or x.shape[-1]
    x, rest = x[..., :size], x[..., size:]
    half = size // 2
    speeds = 1.0 / 10000 ** (torch.arange(0, half, dtype=torch.float64) * 2 / size)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * speeds
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    if how == "halves":
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.cat([torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2), rest], -1)


def slopes(heads: int, length: int) -> Tensor:
    """ALiBi, for any number of heads."""
    near = 2 ** (heads.bit_length() - 1)
    first = [2 ** (-8 * (n + 1) / near) for n in range(near)]
    more = [2 ** (-4 * (2 * n + 1) / near) for n in range(heads - near)]
    return torch.tensor(first + more)[:, None, None] * torch.arange(length)[None, None, :]
