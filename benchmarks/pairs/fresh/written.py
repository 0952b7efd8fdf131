"""Networks written by hand: what is computed is said by part, what the parts are called by a table (tables.py).

A class here knows its parts (`q`, `up`, `norm`) and how to run them; the names, the nesting, the order and what is
joined in one tensor come from the table, written after a public code base that is none of the libraries at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own way to say it
from torch import nn

from benchmarks.pairs.fresh.tables import Line, lines

Tensor = torch.Tensor


class Turned(nn.Module):
    """A linear layer stored inputs first."""

    def __init__(self, width: int, out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, out))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias)


class Written(nn.Module):
    """Parts registered under the names of a table.

    A class that derives from this has `part(name)`, which gives the module or parameter of one part, and `width(name)`
    with inputs, outputs and whether there is a bias for each linear part, so that parts can be joined.
    """

    depth: int
    heads = 3

    def build(self, names: str) -> None:
        self.at: dict[str, Callable[[Tensor], Tensor]] = {}
        self.known: dict[tuple[str, ...], nn.Module | nn.Parameter] = {}
        self.turning = "rope" in names
        group: list[Line] = []
        for line in [*lines(names), None]:
            if line and "#" in line.key:
                group.append(line)
                continue
            for number in range(self.depth):
                for each in group:
                    self._register(each, str(number))
            group = []
            if line:
                self._register(line, "")

    def _register(self, line: Line, number: str) -> None:
        shift = re.search(r"#([+-]\d+)", line.parts[0])
        if shift and number:
            if not self.has(int(number) + int(shift[1])):
                return
            parts = tuple(re.sub(r"#[+-]\d+", str(int(number) + int(shift[1])), part) for part in line.parts)
        else:
            parts = tuple(part.replace("#", number) for part in line.parts)
        path = line.key.replace("#", number)
        roles = tuple(part.removesuffix(".@").removesuffix(".weight").removesuffix(".bias") for part in parts)
        layer = self.known.get(roles)
        if layer is None:
            layer = self.known[roles] = self._made(roles, line.ops)
            if isinstance(layer, nn.Module):
                self._reach(roles, line.ops, layer)
        *above, last = path.split(".")
        parent: nn.Module = self
        for token in above:
            if token not in parent._modules:
                parent.add_module(token, nn.Module())
            parent = parent.get_submodule(token)
        if isinstance(layer, nn.Parameter):
            parent.register_parameter(last, layer)
        elif last == "@":
            assert above
            owner = self.get_submodule(".".join(above[:-1])) if above[:-1] else self
            owner.add_module(above[-1], layer)
        else:
            for leaf, value in layer.named_parameters():
                if "@" in last or parts[0].endswith(leaf):
                    parent.register_parameter(last.replace("@", leaf), value)

    def has(self, number: int) -> bool:
        return 0 <= number < self.depth

    def _made(self, roles: tuple[str, ...], ops: str) -> nn.Module | nn.Parameter:
        if len(roles) == 1 and "T" not in ops.split(","):
            return self.part(roles[0])
        width, _, bias = self.width(roles[0])
        out = sum(self.width(role)[1] for role in roles)
        return Turned(width, out, bias) if "T" in ops.split(",") else nn.Linear(width, out, bias)

    def _reach(self, roles: tuple[str, ...], ops: str, layer: nn.Module) -> None:
        """How to run each part of a joined layer."""
        start = 0
        for n, role in enumerate(roles):
            if len(roles) == 1:
                self.at[role] = layer
            elif "heads" in ops:
                self.at[role] = self._one_head(layer, n, len(roles))
            else:
                stop = start + self.width(role)[1]
                self.at[role] = self._rows(layer, start, stop)
                start = stop

    def _one_head(self, layer: nn.Module, n: int, of: int) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            joined: Tensor = layer(x)
            return joined.reshape(*joined.shape[:-1], self.heads, of, -1)[..., n, :].flatten(-2)

        return run

    @staticmethod
    def _rows(layer: nn.Module, start: int, stop: int) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            joined: Tensor = layer(x)
            return joined[..., start:stop]

        return run

    def parameter(self, role: str) -> Tensor:
        value = self.known[role,]
        assert isinstance(value, nn.Parameter)
        return value

    def part(self, role: str) -> nn.Module | nn.Parameter:
        raise NotImplementedError

    def width(self, role: str) -> tuple[int, int, bool]:
        raise NotImplementedError


def by_head(x: Tensor, size: int) -> Tensor:
    """batch × length × width as batch × heads × length × size."""
    return x.reshape(*x.shape[:-1], -1, size).transpose(1, 2)


def onto_grid(x: Tensor, side: int) -> Tensor:
    """batch × places × width as batch × width × side × side."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], side, -1)
