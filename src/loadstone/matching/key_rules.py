"""Rules of a recipe: where each key of the model takes its values from, as few lines as a person wants to read.

    "stages.{a}.layers.{b}.layer.{c}.conv.weight" = "layer{a+1}.{b}.conv{c+1}.weight"
    "stages.{a}.layers.{b}.norm.*" = "layer{a+1}.{b}.bn.*"
    "attn.qkv.weight" = "q.weight + k.weight + v.weight"
    "proj.weight" = "c_proj.weight | t()"
    "k.*" = "qkv.* | chunk(1, 3)"

The model's key stands on the left.  `{a}` is a number, and `*` the last name of a key; both mean the same on the right.
`+` joins along the first axis, `|` is followed by what is done, in torch's words; parts that change before they are
joined stand in brackets.  Where several rules fit a key, the first does.

    "rnn.weight_ih" = "cell.ih.weight | blocks(0; 0, 1, 3, 2)"                   the third and fourth quarter of axis 0
    "qkv.weight" = "query_key_value.weight | regroup(0; -1, 3, 16; 1, 0, 2)"     axis 0 as a grid, which is turned
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from loadstone.errors import Diagnostic, RecipeError
from loadstone.keys import leaf
from loadstone.matching.step_shapes import Shapes
from loadstone.matching.structure.items import Assignment, Taken
from loadstone.matching.structure.rules import induce
from loadstone.matching.structure.steps import Blocks, Narrow, Permute, Regroup, Reshape, Shape, Step, after, beside

_SLOT = re.compile(r"\{([a-z]+)([+-]\d+)?\}")
_SPECIAL = re.compile(r"[{}()|+*\s\0]")  # in a key: it cannot be told from the rule around it
_STEP = re.compile(r"(reshape|permute|t|rows|chunk|regroup|blocks)\(([-\d,; ]*)\)")
_MOST_STARRED = 500  # rules; nobody reads more, and each is tried on every key
_STEP_WORDS = (
    "t(), permute(dims), reshape(sizes), chunk(index, parts), rows(start, length), regroup(axis; sizes; order) and "
    "blocks(axis; order)"
)
_STEPS = re.compile(rf"(?: \| {_STEP.pattern})+")  # while rules are made, letters stand for them: digits become slots


@dataclass(frozen=True, slots=True)
class KeyRule:
    """One line: the template of keys of the model, and the expression over keys of the checkpoint."""

    target: str
    source: str

    @property
    def text(self) -> str:
        return f"{self.target} = {self.source}"


def rules_for(assignments: Mapping[str, Assignment], shapes: Shapes, targets: Iterable[str]) -> dict[str, str]:
    """Rules that give exactly these assignments, by template of the model's keys; empty where keys cannot be written.

    Args:
        shapes: of the keys of the checkpoint.
        targets: every key of the model: a rule must not say more than was found.
    """
    keys = [taken.key for one in assignments.values() for taken in one.sources]
    if any(_SPECIAL.search(key) for key in (*assignments, *keys)):
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


def expression(assignment: Assignment, shapes: Shapes) -> str:
    """The right side of a rule for one tensor."""
    if len(assignment.sources) == 1:
        (taken,) = assignment.sources
        return taken.key + _steps_text((*taken.steps, *assignment.steps), shapes[taken.key])
    parts: list[str] = []
    whole: Shape = (0,)
    for taken in assignment.sources:
        text = _steps_text(taken.steps, shapes[taken.key])
        parts.append(f"({taken.key}{text})" if text else taken.key)
        whole = beside(whole, after(shapes[taken.key], taken.steps))
    return " + ".join(parts) + _steps_text(assignment.steps, whole)


def sources_of(text: str) -> list[str]:
    """The keys of the checkpoint that an expression takes."""
    parts = _split(_split(text, " | ")[0], " + ")
    return [_split(_inner(part), " | ")[0] for part in parts]


def parse(text: str, target: str, rule: str, shapes: Shapes) -> Assignment:
    """The assignment that an expression without slots stands for; RecipeError where it is none.

    Args:
        shapes: of the keys that it takes; of others, everything is taken to fit.
    """
    whole, *steps = _split(text, " | ")
    sources: list[Taken] = []
    joined: Shape = (0,)
    for part in _split(whole, " + "):
        key, *before = _split(_inner(part), " | ")
        if not key or _SPECIAL.search(key):
            raise _wrong(f"`{key}` in the rule `{rule}` is no key of a checkpoint")
        done, shape = _steps(before, rule, shapes.get(key))
        sources.append(Taken(key, done))
        if shape is not None:
            joined = shape if " + " not in whole else beside(joined, shape)
    done, _ = _steps(steps, rule, joined if shapes else None)
    return Assignment(target, tuple(sources), done, "answer", f"`{rule}`")


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
        parse(_filler(right)(dict.fromkeys((*known, "leaf"), "9")), left, text, {})


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
        if "." in left and not _SPECIAL.search(last) and found == right.count(" + ") + 1:
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


def _steps_text(steps: Iterable[Step], shape: Shape) -> str:
    """What is done to a tensor of that shape."""
    text = ""
    for step in steps:
        text += f" | {_step_text(step, shape)}"
        shape = after(shape, (step,))
    return text


def _step_text(step: Step, shape: Shape) -> str:
    match step:
        case Reshape(new):
            return f"reshape({_listed(new)})"
        case Permute((1, 0)):
            return "t()"
        case Permute(dims):
            return f"permute({_listed(dims)})"
        case Narrow(start, length) if start % length == shape[0] % length == 0:
            return f"chunk({start // length}, {shape[0] // length})"
        case Narrow(start, length):
            return f"rows({start}, {length})"
        case Regroup(axis, sizes, order):
            return f"regroup({axis}; {_listed(sizes)}; {_listed(order)})"
        case Blocks(axis, order):
            return f"blocks({axis}; {_listed(order)})"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _steps(texts: Iterable[str], rule: str, shape: Shape | None) -> tuple[tuple[Step, ...], Shape | None]:
    """The steps, and the shape they give; RecipeError for one that is none, or that cannot be done to that shape."""
    steps: list[Step] = []
    for text in texts:
        step = _step(text, rule, shape)
        steps.append(step)
        try:
            shape = None if shape is None else after(shape, (step,))
        except ValueError as error:
            raise _wrong(f"`{text}` in the rule `{rule}` cannot be done: {error}") from None
    return tuple(steps), shape


def _step(text: str, rule: str, shape: Shape | None) -> Step:
    found = _STEP.fullmatch(text.strip())
    lists = [_numbers(part) for part in found[2].split(";")] if found else []
    match found[1] if found else "", lists:
        case "reshape", [sizes] if sizes is not None and min(sizes, default=1) >= 0:
            return Reshape(sizes)
        case "t", [()]:
            return Permute((1, 0))
        case "permute", [dims] if _is_order(dims):
            return Permute(dims)
        case "rows", [(start, length)] if start >= 0 and length > 0:
            return Narrow(start, length)
        case "chunk", [(index, parts)] if 0 <= index < parts:
            if shape is None:
                return Narrow(0, 1)
            if shape[:1] and shape[0] % parts == 0:
                return Narrow(index * (shape[0] // parts), shape[0] // parts)
            raise _wrong(f"`{text}` in the rule `{rule}` cannot be done to {' × '.join(map(str, shape)) or 'a scalar'}")
        case "regroup", [(axis,), sizes, order] if axis >= 0 and _is_grid(sizes) and _is_order(order, sizes):
            return Regroup(axis, sizes, order)
        case "blocks", [(axis,), order] if axis >= 0 and order and _is_order(order):
            return Blocks(axis, order)
    raise _wrong(f"`{text}` in the rule `{rule}` is no step; they are {_STEP_WORDS}")


def _numbers(text: str) -> tuple[int, ...] | None:
    """The numbers of a list; None where it is none."""
    texts = [each.strip() for each in text.split(",") if each.strip()]
    return tuple(map(int, texts)) if all(re.fullmatch(r"-?\d+", each) for each in texts) else None


def _is_order(order: tuple[int, ...] | None, of: Sequence[int] | None = None) -> TypeGuard[tuple[int, ...]]:
    return order is not None and sorted(order) == list(range(len(order if of is None else of)))


def _is_grid(sizes: tuple[int, ...] | None) -> TypeGuard[tuple[int, ...]]:
    return bool(sizes) and sizes is not None and sizes.count(-1) <= 1 and all(size > 0 or size == -1 for size in sizes)


def _inner(part: str) -> str:
    return part[1:-1] if part.startswith("(") and part.endswith(")") else part


def _split(text: str, mark: str) -> list[str]:
    """The text at every mark that stands in no bracket."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and text.startswith(mark, at):
            parts.append(text[start:at])
            start = at + len(mark)
    return [*parts, text[start:]]


def _letters(number: int) -> str:
    return re.sub(r"\d", lambda digit: chr(97 + int(digit[0])), str(number))


def _wrong(message: str) -> RecipeError:
    return RecipeError(Diagnostic("recipe-invalid", message))
