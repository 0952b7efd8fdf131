"""Options of a plan, checked once: what a person decided about keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from loadstone.matching.adapters import Adapter

Rename = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Options:
    """What plan and load were told about keys; see design: "Options of plan and load".

    Attributes:
        strict: an unsettled key on either side is an error.
        rename: {regex: replacement}, applied in order with re.sub to every checkpoint key, or one callable.
        only, drop: globs over checkpoint keys.  In a glob `*` stops at a dot, `**` does not, and a bare module name
            means everything under it.
        fresh: globs over model keys that keep the values they have.
        adapt: {glob over model keys: adapter}.
        match: "names" or "structure".
        answers: {key of the model: key of the checkpoint} for what a match by structure leaves open; or an expression
            over keys, as rules have it; or "", which is nothing.  {"*": "order"} goes by the order of keys.
        rules: {template of model keys: where their values come from}, see key_rules; only a recipe has them.
        hashes: digests of both lists of keys, "checkpoint" and "model", for which the rules were made.
        dtype: the dtype parameters end up in, where one was asked for; None keeps the model's.
        assign: parameters become the file's tensors, in the file's dtype unless `dtype` is given.
        is_trial: nobody reads the plan, so that it is not worked out what waits for which answer.
    """

    strict: bool = True
    rename: Mapping[str, str] | Rename | None = None
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    adapt: Mapping[str, Adapter] = field(default_factory=dict)
    match: Literal["names", "structure"] = "names"
    answers: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None
    assign: bool = False
    is_trial: bool = False

    def merged(self, recipe: Options) -> Options:
        """These options on top of a recipe's: globs and rules are added to it, and win where both say something.

        A callable `rename` takes the place of the recipe's.  `strict` holds only where neither says otherwise.
        """
        rename = self.rename
        if isinstance(rename, Mapping) and isinstance(recipe.rename, Mapping):
            rename = {**recipe.rename, **rename}
        return replace(
            self,
            strict=self.strict and recipe.strict,
            match="structure" if "structure" in (self.match, recipe.match) else "names",
            answers={**recipe.answers, **self.answers},
            rules=recipe.rules,
            hashes=recipe.hashes,
            rename=recipe.rename if rename is None else rename,
            only=(*recipe.only, *self.only),
            drop=(*recipe.drop, *self.drop),
            fresh=(*recipe.fresh, *self.fresh),
            adapt={**self.adapt, **{glob: how for glob, how in recipe.adapt.items() if glob not in self.adapt}},
        )
