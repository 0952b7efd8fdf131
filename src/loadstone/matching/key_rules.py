"""Rules of a recipe: where each key of the model takes its values from, as few lines as a person wants to read.

    "stages.{a}.layers.{b}.layer.{c}.conv.weight" = "layer{a+1}.{b}.conv{c+1}.weight"
    "stages.{a}.layers.{b}.norm.*" = "layer{a+1}.{b}.bn.*"
    "attn.qkv.weight" = "q.weight + k.weight + v.weight"
    "proj.weight" = "c_proj.weight | t()"
    "k.*" = "qkv.* | chunk(1, 3)"

The model's key stands on the left.  `{a}` is a number, and `*` the last name of a key; both mean the same on the right.
What stands on the right is an expression, see structure/expressions.  Where several rules fit a key, the first does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from loadstone.errors import Diagnostic, RecipeError
from loadstone.keys import leaf
from loadstone.matching.structure.expressions import SPECIAL, STEP, Shapes, expression, parse
from loadstone.matching.structure.items import Assignment
from loadstone.matching.structure.rules import induce

_SLOT = re.compile(r"\{([a-z]+)([+-]\d+)?\}")
_MOST_STARRED = 500  # rules; nobody reads more, and each is tried on every key
# while rules are made, letters stand for steps and for an eps: digits become slots
_STEPS = re.compile(rf"(?: \| {STEP.pattern})+|; [-.e\d]+(?=\))")


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One line: the template of keys of the model, and the expression over keys of the checkpoint."""

    target: str
    source: str

    @property
    def text(self) -> str:
        return f"{self.target} = {self.source}"

    def read(self, text: str, target: str, shapes: Shapes) -> Assignment:
        """What its right side says once the slots are filled; RecipeError where that is no expression."""
        try:
            return replace(parse(text, target, shapes), evidence=f"`{self.text}`")
        except ValueError as error:
            raise _wrong(f"{error}, in the rule `{self.text}`") from None


def rules_for(assignments: Mapping[str, Assignment], shapes: Shapes, targets: Iterable[str]) -> dict[str, str]:
    """Rules that give exactly these assignments, by template of the model's keys; empty where keys cannot be written.

    Args:
        shapes: of the keys of the checkpoint.
        targets: every key of the model: a rule must not say more than was found.
    """
    keys = [taken.key for one in assignments.values() for taken in one.sources]
    if any(SPECIAL.search(key) for key in (*assignments, *keys)):
        return {}
    wanted = {target: expression(one, shapes) for target, one in assignments.items()}
    others = [target for target in targets if target not in wanted]
    rules = _starred(_induced(wanted), wanted, others)
    said = expand(rules, (*wanted, *others))
    wrong = {target: text for target, text in wanted.items() if target not in said or said[target][0] != text}
    rules = {**wrong, **{left: right for left, right in rules.items() if left not in wrong}}
    said = expand(rules, (*wanted, *others))
    exact = said.keys() == wanted.keys() and all(said[target][0] == text for target, text in wanted.items())
    return rules if exact else wanted


def expand(rules: Mapping[str, str], targets: Iterable[str]) -> dict[str, tuple[str, KeyRule]]:
    """{key of the model: (expression, rule)} for the keys that a rule fits."""
    literal = {left: at for at, left in enumerate(rules) if not ("{" in left or "*" in left)}
    compiled = [
        (at, _pattern(left), _filler(right), KeyRule(left, right))
        for at, (left, right) in enumerate(rules.items())
        if left not in literal
    ]
    said: dict[str, tuple[str, KeyRule]] = {}
    for target in targets:
        own = literal.get(target, len(rules))
        for at, pattern, fill, rule in compiled:
            if at < own and (found := pattern.fullmatch(target)) is not None:
                said[target] = fill(found.groupdict()), rule
                break
        else:
            if target in literal:
                said[target] = rules[target], KeyRule(target, rules[target])
    return said


def check_rules(rules: Mapping[str, str], name: str) -> None:
    """Raise RecipeError (recipe-invalid) for the first rule that cannot be read."""
    for left, right in rules.items():
        text = KeyRule(left, right).text
        known = {found[1] for found in _SLOT.finditer(left)}
        rest = _SLOT.sub("", left)
        try:
            pattern = _pattern(left)
        except re.error:
            raise _wrong(f"the rule `{text}` in `{name}` uses a slot twice on its left side") from None
        del pattern
        if any(found[2] for found in _SLOT.finditer(left)) or "{" in rest or rest.count("*") > 1:
            raise _wrong(f"the left side of the rule `{text}` in `{name}` takes `{{a}}` and one `*` only")
        unknown = [found[0] for found in _SLOT.finditer(right) if found[1] not in known]
        if unknown or ("*" in right and "*" not in rest):
            raise _wrong(f"the rule `{text}` in `{name}` uses `{(unknown or ['*'])[0]}`, which its left side lacks")
        KeyRule(left, right).read(_filler(right)(dict.fromkeys((*known, "leaf"), "9")), left, {})


def _induced(wanted: Mapping[str, str]) -> dict[str, str]:
    """Templates, by the engine's own induction; those with few slots come first."""
    kinds: dict[str, str] = {}
    marked: dict[str, str] = {}
    rules: list[tuple[str, str]] = []
    for target, text in wanted.items():
        source = _STEPS.sub(lambda found: f"\0{kinds.setdefault(found[0], _letters(len(kinds)))}\0", text)
        if marked.setdefault(source, target) != target:  # one tensor that goes to two places
            rules.append((target, text))
    steps = {f"\0{letters}\0": text for text, letters in kinds.items()}
    for rule in induce(marked):  # slots are read from keys of the model, so these stand on the engine's left
        text = re.sub(r"\0[a-j]+\0", lambda mark: steps[mark[0]], rule.target)
        rules.append((rule.source, text))
    return dict(sorted(rules, key=lambda rule: len(_SLOT.findall(rule[0]))))


def _starred(rules: Mapping[str, str], wanted: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
    """Rules that differ in the last name only become one with `*`, where that says no more."""
    if len(rules) > _MOST_STARRED:
        return dict(rules)
    families: dict[tuple[str, str], list[str]] = {}
    for left, right in rules.items():
        last = leaf(left)
        source, found = re.subn(rf"\.{re.escape(last)}(?=$|[ )])", ".*", right)
        if "." in left and not SPECIAL.search(last) and found == right.count(" + ") + 1:
            families.setdefault((left.removesuffix(last), source), []).append(left)
    absent = list(others)
    starred: dict[str, str] = {}
    gone: dict[str, None] = {}
    for (before, source), members in families.items():
        if len(members) < 2:
            continue
        rule = {before + "*": source}
        said = expand(rule, (*wanted, *absent))
        if all(wanted.get(target) == text for target, (text, _) in said.items()):
            starred |= rule
            gone |= dict.fromkeys(members)
    made: dict[str, str] = {}
    for left, right in rules.items():
        if left not in gone:
            made[left] = right
        else:
            star = left.removesuffix(leaf(left)) + "*"
            made.setdefault(star, starred[star])
    return made


def _pattern(left: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[a-z]+\}|\*)", left)
    return re.compile("".join(_group(part) for part in parts))


def _group(part: str) -> str:
    if part == "*":
        return r"(?P<leaf>[^.]+)"
    return rf"(?P<{part[1:-1]}>0|[1-9]\d*)" if re.fullmatch(r"\{[a-z]+\}", part) else re.escape(part)


def _filler(right: str) -> Callable[[Mapping[str, str]], str]:
    def fill(slots: Mapping[str, str]) -> str:
        text = _SLOT.sub(lambda found: str(int(slots[found[1]]) + int(found[2] or 0)), right)
        return text.replace("*", slots.get("leaf", "*"))

    return fill


def _letters(number: int) -> str:
    return re.sub(r"\d", lambda digit: chr(97 + int(digit[0])), str(number))


def _wrong(message: str) -> RecipeError:
    return RecipeError(Diagnostic("recipe-invalid", message))
