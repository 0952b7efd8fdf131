"""Networks written by hand besides the decoders: to be named by a table, or with names of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from benchmarks.pairs.fresh.written import Tensor, Written, by_head


class Encoder(Written):
    """Norms behind each half, as in BERT; one set of weights for all layers where it is shared."""

    def __init__(
        self,
        names: str,
        *,
        depth: int = 4,
        width: int = 48,
        heads: int = 3,
        words: int = 100,
        places: int = 32,
        embed: int = 0,
        eps: float = 1e-12,
        first: int = 0,
        repeat: int = 1,
        activation: str = "none",
    ) -> None:
        super().__init__()
        self.depth, self.d, self.heads, self.words, self.places = depth, width, heads, words, places
        self.narrow, self.eps, self.first, self.repeat, self.activation = embed or width, eps, first, repeat, activation
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        d = self.d
        sizes = {"up": (d, 4 * d), "down": (4 * d, d), "in": (self.narrow, d)}
        return (*sizes.get(role.rsplit(".", 1)[-1], (d, d)), True)

    def part(self, role: str) -> nn.Module | nn.Parameter:
        part = role.rsplit(".", 1)[-1]
        if part in ("tok", "pos", "seg"):
            return nn.Embedding({"tok": self.words, "pos": self.places, "seg": 2}[part], self.narrow)
        if part == "by_word":
            return nn.Parameter(torch.zeros(self.words))
        if part in ("n1", "n2", "ne", "nh"):
            return nn.LayerNorm(self.narrow if part == "ne" else self.d, eps=self.eps)
        return nn.Linear(*self.width(role))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.at["tok"](ids) + self.at["pos"](torch.arange(ids.shape[1]) + self.first)
        if "seg" in self.at:
            x = x + self.at["seg"](torch.zeros_like(ids))
        x = self.at["ne"](x)
        if "in" in self.at:
            x = self.at["in"](x)
        for n in range(self.depth * self.repeat):
            x = self._layer(n % self.depth, x)
        if "dense" in self.at:
            words = self.known["tok",]
            assert isinstance(words, nn.Embedding)
            return F.linear(self.at["nh"](F.gelu(self.at["dense"](x))), words.weight, self.parameter("by_word"))
        return x

    def _layer(self, n: int, x: Tensor) -> Tensor:
        q, k, v = (by_head(self.at[f"{n}.{part}"](x), self.d // self.heads) for part in "qkv")
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.at[f"{n}.n1"](x + self.at[f"{n}.o"](mixed))
        hidden = F.gelu(self.at[f"{n}.up"](x), approximate=self.activation)
        return self.at[f"{n}.n2"](x + self.at[f"{n}.down"](hidden))


class Seq2Seq(Written):
    """T5: norms without bias, no scaling, positions as a table of distances in the first layer of either side."""

    def __init__(self, names: str, *, depth: int = 3, width: int = 48, heads: int = 3, words: int = 100) -> None:
        super().__init__()
        self.depth, self.d, self.heads, self.words = depth, width, heads, words
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        sizes = {"up": (self.d, 4 * self.d), "down": (4 * self.d, self.d)}
        return (*sizes.get(role.rsplit(".", 1)[-1], (self.d, self.d)), False)

    def part(self, role: str) -> nn.Module | nn.Parameter:
        part = role.rsplit(".", 1)[-1]
        if part == "tok":
            return nn.Embedding(self.words, self.d)
        if part == "far":
            return nn.Embedding(32, self.heads)
        if part.startswith("n"):
            return nn.RMSNorm(self.d, eps=1e-6)
        return nn.Linear(*self.width(role))

    def forward(self, ids: Tensor, answer: Tensor) -> Tensor:
        x = self.at["tok"](ids)
        bias = self.distances("enc.far", ids.shape[1], both=True)
        for n in range(self.depth):
            x = x + self.attend(f"{n}.enc.", self.at[f"{n}.enc.n1"](x), None, bias)
            x = x + self.at[f"{n}.enc.down"](F.relu(self.at[f"{n}.enc.up"](self.at[f"{n}.enc.n2"](x))))
        memory = self.at["enc.nf"](x)
        y = self.at["tok"](answer)
        bias = self.distances("dec.far", answer.shape[1], both=False)
        for n in range(self.depth):
            y = y + self.attend(f"{n}.dec.", self.at[f"{n}.dec.n1"](y), None, bias)
            y = y + self.attend(f"{n}.dec.x", self.at[f"{n}.dec.nx"](y), memory, None)
            y = y + self.at[f"{n}.dec.down"](F.relu(self.at[f"{n}.dec.up"](self.at[f"{n}.dec.n2"](y))))
        words = self.known["tok",]
        assert isinstance(words, nn.Embedding)
        return F.linear(self.at["dec.nf"](y) * self.d**-0.5, words.weight)

    def attend(self, place: str, x: Tensor, memory: Tensor | None, bias: Tensor | None) -> Tensor:
        other = x if memory is None else memory
        q, k, v = (
            by_head(self.at[place + part](each), self.d // self.heads)
            for part, each in (("q", x), ("k", other), ("v", other))
        )
        scores = q @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return self.at[place + "o"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def distances(self, role: str, length: int, *, both: bool) -> Tensor:
        apart = torch.arange(length)[None, :] - torch.arange(length)[:, None]
        buckets, base = (16, (apart > 0).long() * 16) if both else (32, torch.zeros_like(apart))
        far = apart.abs() if both else (-apart).clamp(min=0)
        near = buckets // 2
        scaled = near + (torch.log(far.clamp(min=1).float() / near) / math.log(128 / near) * (buckets - near)).long()
        which = base + torch.where(far < near, far, scaled.clamp(max=buckets - 1))
        bias = self.at[role](which).permute(2, 0, 1)
        return bias if both else bias.masked_fill(apart > 0, -torch.inf)


class TorchSeq2Seq(nn.Module):
    """BART on torch's own layers: joined projections."""

    def __init__(self, depth: int = 3, width: int = 48, heads: int = 3, words: int = 100, places: int = 34) -> None:
        super().__init__()
        self.src_tok_emb = self.tgt_tok_emb = nn.Embedding(words, width)
        self.src_pos, self.tgt_pos = nn.Embedding(places, width), nn.Embedding(places, width)
        self.src_norm, self.tgt_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        options: dict[str, Any] = {
            "nhead": heads,
            "dim_feedforward": 4 * width,
            "dropout": 0.0,
            "activation": "gelu",
            "batch_first": True,
        }
        self.transformer = nn.Module()
        self.transformer.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, **options),
            depth,
            enable_nested_tensor=False,
        )
        self.transformer.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, **options),
            depth,
        )

    def forward(self, ids: Tensor, answer: Tensor) -> Tensor:
        x = self.src_norm(self.src_tok_emb(ids) + self.src_pos(torch.arange(ids.shape[1]) + 2))
        y = self.tgt_norm(self.tgt_tok_emb(answer) + self.tgt_pos(torch.arange(answer.shape[1]) + 2))
        mask = torch.ones(answer.shape[1], answer.shape[1], dtype=torch.bool).triu(1)
        found: Tensor = self.transformer.decoder(y, self.transformer.encoder(x), tgt_mask=mask)  # type: ignore[operator]
        return found


class Mamba(Written):
    """A selective state space, step by step."""

    def __init__(self, names: str, *, depth: int = 3, width: int = 48, words: int = 100, state: int = 8) -> None:
        super().__init__()
        self.depth, self.d, self.words, self.state, self.rank = depth, width, words, state, math.ceil(width / 16)
        self.build(names)

    def width(self, role: str) -> tuple[int, int, bool]:
        inner = 2 * self.d
        sizes = {
            "in": (self.d, 2 * inner, False),
            "x": (inner, self.rank + 2 * self.state, False),
            "dt": (self.rank, inner, True),
            "out": (inner, self.d, False),
        }
        return sizes[role.rsplit(".", 1)[-1]]

    def part(self, role: str) -> nn.Module | nn.Parameter:
        part, inner = role.rsplit(".", 1)[-1], 2 * self.d
        if part == "tok":
            return nn.Embedding(self.words, self.d)
        if part in ("n", "nf"):
            return nn.RMSNorm(self.d, eps=1e-5)
        if part == "conv":
            return nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        if part in ("A", "D"):
            return nn.Parameter(torch.zeros(inner, self.state) if part == "A" else torch.zeros(inner))
        return nn.Linear(*self.width(role))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.at["tok"](ids)
        for n in range(self.depth):
            x = x + self.mix(f"{n}.", self.at[f"{n}.n"](x))
        words = self.known["tok",]
        assert isinstance(words, nn.Embedding)
        return F.linear(self.at["nf"](x), words.weight)

    def mix(self, n: str, x: Tensor) -> Tensor:
        u, gate = self.at[n + "in"](x).chunk(2, -1)
        u = F.silu(self.at[n + "conv"](u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, into, out = torch.split(self.at[n + "x"](u), [self.rank, self.state, self.state], -1)
        step = F.softplus(self.at[n + "dt"](step))
        decay = -torch.exp(self.parameter(n + "A"))
        state, found = u.new_zeros(u.shape[0], u.shape[2], self.state), []
        for t in range(x.shape[1]):
            kept = torch.exp(step[:, t, :, None] * decay)
            state = kept * state + (step[:, t] * u[:, t])[..., None] * into[:, t, None, :]
            found.append((state * out[:, t, None, :]).sum(-1))
        y = torch.stack(found, 1) + u * self.parameter(n + "D")
        return self.at[n + "out"](y * F.silu(gate))
