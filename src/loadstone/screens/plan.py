"""The screen of a plan: the verdict first, then how the keys were settled, then what is left to decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loadstone.errors import Diagnostic
from loadstone.keys import fold_groups
from loadstone.screens import quantities
from loadstone.screens.diagnostic import diagnostic_lines, headline
from loadstone.screens.lines import EMPTY, Line, Span, Style, draw, indented, line
from loadstone.screens.table import tabulate
from loadstone.screens.text import cells, cut_key, visible, wrap, wrap_words

if TYPE_CHECKING:
    from loadstone.matching.plan import Action, Plan

_MOST_OF_A_CODE = 6  # diagnostics with one code that are shown before the rest is counted
_MOST_GROUPS = 24
_MOST_RULES = 6
_MOST_FOLDS = 4  # folded keys named in a group's row
_FEW_WAYS = 4  # powers of ten that are written out
_BEFORE_REASONS = 24  # cells: indent, sign, word and count

# What a group of actions is called: sign, word, style.  The order is that of the rows.
_KINDS: dict[str, tuple[str, str, Style]] = {
    "same": ("=", "same key", "good"),
    "renamed": ("→", "other key", "good"),
    "changed": ("⤨", "changed", "good"),
    "tied": ("=", "tied", "good"),
    "kept": ("·", "kept", "dim"),
    "dropped": ("∅", "not used", "dim"),
    "missing": ("?", "missing", "error"),
    "joined": ("⊕", "joined", "good"),
    "unexpected": ("?", "unexpected", "error"),
    "mismatched": ("?", "other shape", "error"),
    "ambiguous": ("?", "ambiguous", "error"),
}
_UNDECIDED = ("missing", "unexpected", "mismatched", "ambiguous")


def render_plan(plan: Plan, *, width: int = 100, color: bool = False, all_rows: bool = False) -> str:
    """The plan at a glance; `all_rows` adds a line for every key."""
    title = f"{visible(plan.source_name)} into {visible(plan.target_name)}"
    if plan.weights:
        title += f"   weights `{visible(plan.weights)}`"
    sections: list[list[Line]] = [
        [line((title, "strong"))],
        _verdict(plan, width),
        _groups(plan, width, None if all_rows else _MOST_GROUPS),
        _rules(plan, width, None if all_rows else _MOST_RULES),
        _ways(plan, width),
    ]
    if all_rows:
        sections.append(_every_key(plan, width))
    sections += _diagnostics(plan.diagnostics, width, all_rows)
    closing = _closing(plan)
    if closing:
        sections.append([closing])
    lines: list[Line] = []
    for section in sections:
        lines += [*section, EMPTY] if section else []
    return draw(lines[:-1], color=color)


def next_step(plan: Plan) -> str:
    """One thing to do after reading this plan."""
    if plan.ok:
        same = ", ... the same options" if plan.recipe_options else ""
        return f'load it with `loadstone.load(model, "{plan.source_name}"{same})`'
    if any(finding.code == "fits-by-structure" for finding in plan.diagnostics):
        return "the layers fit where the names do not: plan again by structure, as the note says"
    code = plan.diagnostics[0].code
    if code == "open-question":
        return "answer one, and plan again: an answer settles every place like it, and is kept in the recipe"
    return f"decide, and plan again with the options above; `loadstone explain {code}` says more"


def _verdict(plan: Plan, width: int) -> list[Line]:
    wanted = len(plan.schema.slots)
    filled = len(plan.filled)
    undecided = sum(action.status in _UNDECIDED for action in plan.actions)
    coverage = f"{filled:,} of {quantities.counted(wanted, 'model tensor')} {'has' if wanted == 1 else 'have'} a source"
    if plan.ok:
        loaded = [action for action in plan.actions if action.status == "load"]
        slots = [plan.schema.slots[str(action.target)] for action in loaded if action.target in plan.schema.slots]
        parameters = sum(slot.elements for slot in slots if slot.kind == "parameter")
        sources = {str(action.source) for action in loaded}.intersection(plan.sources)
        nbytes = sum(plan.sources[key].nbytes for key in sources)
        facts = [coverage, f"{quantities.elements(parameters)} parameters", f"{quantities.nbytes(nbytes)} to read"]
        word: Span = ("ready", "good")
    else:
        errors = sum(diagnostic.severity == "error" for diagnostic in plan.diagnostics)
        facts = [f"{undecided:,} undecided" if undecided else quantities.counted(errors, "error"), coverage]
        word = ("not ready", "error")
    first, *more = wrap_words(facts, width - len(word[0]) - 5, "   ")
    return [line("  ", word, "   ", first), *(line(" " * (len(word[0]) + 5), text) for text in more)]


def _groups(plan: Plan, width: int, limit: int | None) -> list[Line]:
    """One row for all actions that were settled in one way; the largest ones where there are more than `limit`."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Action]] = {}
    for action in plan.actions:
        operations = tuple(op.name for op in action.ops)
        groups.setdefault((_kind(action), action.how, operations), []).append(action)
    shown = sorted(groups.items(), key=lambda group: -len(group[1]))[:limit]
    order = list(_KINDS)
    branches = Counter(_branch(action) for action in plan.actions)
    rows = [
        (_KINDS[kind], f"{len(actions):,}", _described(kind, how, actions, branches, width - _BEFORE_REASONS))
        for (kind, how, _), actions in sorted(shown, key=lambda group: order.index(group[0][0]))
    ]
    words = max((cells(word) for (_, word, _), _, _ in rows), default=0)
    digits = max((len(count) for _, count, _ in rows), default=0)
    lines: list[Line] = []
    for (sign, word, style), count, described in rows:
        start = f"{sign}  {word}" + " " * (words - cells(word))
        before = cells(start) + digits + 6
        first, *more = wrap(described, width - before) or [""]
        lines.append(line("  ", (start, style), f"  {count:>{digits}}  ", first))
        lines += [line(" " * before, text) for text in more]
    if len(groups) > len(shown):
        lines.append(line((f"  … {len(groups) - len(shown):,} smaller groups, shown with --all", "dim")))
    return lines


def _rules(plan: Plan, width: int, limit: int | None) -> list[Line]:
    """What a match by structure comes down to: the widest rules first."""
    widest = sorted(plan.rules, key=lambda left: -left.count("{"))
    if limit is not None and len(widest) == limit + 1:
        limit = None  # the line that says there is one more would take its place
    lines: list[Line] = []
    for left in widest[:limit]:
        whole = f"{visible(left)} ← {visible(plan.rules[left])}"
        parts = [whole]
        if cells(whole) > width - 4:
            first, *others = visible(plan.rules[left]).split(" + ")
            parts = [visible(left), f"    ← {first}", *(f"    + {other}" for other in others)]
        lines += [line("    ", (cut_key(part, width - 4), "dim")) for part in parts]
    if not lines:
        return []
    more = len(plan.rules) - len(widest[:limit])
    head = f"  {quantities.counted(len(plan.rules), 'rule')}, which the recipe keeps"
    return [line(head), *lines, *([line((f"    … {more:,} more, shown with --all", "dim"))] if more else [])]


def _ways(plan: Plan, width: int) -> list[Line]:
    """How many ways a match by structure leaves."""
    is_said = any(action.how == "by a rule of the recipe" for action in plan.actions)
    if is_said or not (plan.compositions or plan.questions):
        return []
    if not plan.admissible:
        text = "unique: no other pairing fits shapes, blocks, numbers and names"
    else:
        is_few = plan.admissible < _FEW_WAYS
        ways = f"{round(10**plan.admissible):,}" if is_few else f"about 10^{plan.admissible:.0f}"
        what = "went by order" if _by_order(plan) else "is open"
        text = f"{ways} ways to pair what {what} fit equally well; one of them is right"
    return [line(f"  {text}") for text in wrap(text, width - 2)]


def _kind(action: Action) -> str:
    if action.status != "load":
        return action.status
    if action.ops:
        return "changed"
    return "same" if action.source == action.target else "renamed"


def _described(
    kind: str, how: str, actions: Sequence[Action], branches: Mapping[tuple[bool, str], int], room: int
) -> str:
    """Which keys, what happens to their values, and why."""
    texts = [how] if how and how != "same key" else []
    operations = {tuple(op.text for op in action.ops) for action in actions}
    if len(operations) == 1:
        texts += operations.pop()
    else:
        forms = dict.fromkeys(op.text.partition(":")[0] for action in actions for op in action.ops)
        if len(forms) > _MOST_FOLDS:
            forms = dict.fromkeys(op.name for op in actions[0].ops)
        texts.append(f"{', '.join(forms)} in {len(operations):,} forms, see --all")
    reasons = {action.why for action in actions if "by structure" not in how}
    if len(reasons) == 1 and (why := reasons.pop()):
        texts.append(why)
    if kind in ("same", "renamed"):
        return "   ".join(texts)
    return "   ".join([_folded(actions, branches, room), *texts])


def _folded(actions: Sequence[Action], branches: Mapping[tuple[bool, str], int], room: int) -> str:
    """The keys in few words; `optimizer.**` where everything below `optimizer` is meant."""
    here = Counter(map(_branch, actions))
    place: dict[str, int] = {}  # of each text: that of the first key it stands for
    parts: dict[str, int] = {}
    for at, action in enumerate(actions):
        branch = _branch(action)
        if here[branch] == branches[branch] > 1:
            place.setdefault(f"{branch[1]}.**", at)
        else:
            parts.setdefault(_key(action), at)
    place |= {group.text: parts[group.keys[0]] for group in fold_groups(parts)}
    names = sorted(place, key=place.__getitem__)
    more = f", … {len(names) - _MOST_FOLDS:,} more" if len(names) > _MOST_FOLDS else ""
    return ", ".join(cut_key(name, room) for name in names[:_MOST_FOLDS]) + more


def _key(action: Action) -> str:
    return visible(str(action.target if action.target is not None else action.source))


def _branch(action: Action) -> tuple[bool, str]:
    """The side a line is about, and the first name of its key."""
    return action.target is not None, _key(action).partition(".")[0]


def _every_key(plan: Plan, width: int) -> list[Line]:
    table: list[Sequence[Span]] = []
    for action in plan.actions:
        sign, word, style = _KINDS[_kind(action)]
        table.append(
            (
                (sign, style),
                (action.target if action.target is not None else "–", ""),
                (action.source if action.source is not None else "–", "dim" if action.source == action.target else ""),
                (", ".join(op.text for op in action.ops) or word, style),
            )
        )
    head: Sequence[Span] = (("", ""), ("model", "dim"), ("checkpoint", "dim"), ("", ""))
    first, *rows = (indented(2, content) for content in tabulate([head, *table], width=width - 2, yielding=2))
    lines = [first]
    for action, row in zip(plan.actions, rows, strict=True):
        lines.append(row)
        if action.status == "load" and action.why and "by structure" in action.how:  # no name says so, this does
            lines.append(line((f"       {cut_key(visible(action.why), width - 8)}", "dim")))
    return lines


def _diagnostics(diagnostics: Sequence[Diagnostic], width: int, all_rows: bool) -> list[list[Line]]:
    """Errors and warnings in full, a few of each code; notes as headlines."""
    seen: dict[str, int] = {}
    sections: list[list[Line]] = []
    notes: list[Line] = []
    for diagnostic in diagnostics:
        if diagnostic.severity == "note":
            if diagnostic.fixes:
                sections.append(diagnostic_lines(diagnostic, width))
            else:
                notes += headline(diagnostic, width)
            continue
        seen[diagnostic.code] = seen.get(diagnostic.code, 0) + 1
        if all_rows or seen[diagnostic.code] <= _MOST_OF_A_CODE:
            sections.append(diagnostic_lines(diagnostic, width))
    hidden = [
        line((f"… {count - _MOST_OF_A_CODE:,} more of {code}, shown with --all", "dim"))
        for code, count in seen.items()
        if count > _MOST_OF_A_CODE and not all_rows
    ]
    return [*sections, hidden, notes]


def _closing(plan: Plan) -> Line:
    counts = {
        severity: sum(diagnostic.severity == severity for diagnostic in plan.diagnostics)
        for severity in ("error", "warning")
    }
    found = [quantities.counted(count, severity) for severity, count in counts.items() if count]
    if found:
        return line(", ".join(found) + ("." if plan.ok else "; the model would stay untouched."))
    guessed = _by_order(plan)
    if guessed and plan.ok:
        return line(f"  {quantities.counted(guessed, 'tensor')} by the order of keys, because you asked: a guess.")
    return line("  Nothing was guessed.") if plan.ok else EMPTY


def _by_order(plan: Plan) -> int:
    return sum(found.grade == "order" for found in plan.compositions.values())
