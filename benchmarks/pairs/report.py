"""docs/matching.md and docs/matching.svg from the scores and notes of one run."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pairs.draw import split
from benchmarks.report import DOCS, machine

Row = dict[str, Any]
Notes = Mapping[tuple[str, str], Mapping[str, Any]]

WORDS = {
    "strict": "torch's `load_state_dict(strict=True)`",
    "intersect": "the tutorials' `{k: v for k in model_dict}`, which reports nothing",
    "zip": "both sides in order, counts and shapes equal",
    "shape_order": "in order within each shape",
    "weightbridge": "weightbridge 0.0.4",
    "loadstone": '`ls.load(model, checkpoint, match="structure")`',
    "loadstone+answers": "the same, at most three questions answered",
    "loadstone+reference": "the same, with the source model to compare outputs with",
}
OURS = ["weightbridge", "loadstone", "loadstone+answers", "loadstone+reference"]
KINDS: dict[str, Callable[[Row], bool]] = {
    "positives": lambda row: row["kind"] == "full" and row["tier"] == "sd",
    "permuted": lambda row: row["kind"] == "full" and row["tier"] == "models",
    "partial": lambda row: row["kind"] == "partial",
    "negatives": lambda row: row["kind"] == "negative" and row["tier"] == "sd",
    "undecidable": lambda row: row["kind"] == "negative" and row["tier"] == "models",
}
SCORES = ("EQUAL", "WRONG", "REFUSED")
DIFFICULTIES = (
    "same names", "prefix", "rename, same order", "rename, order differs", "reshape", "split/concat", "transpose",
    "arithmetic", "values",
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """What the runner wrote."""

    wall_seconds: int
    results: list[Row]

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.results if KINDS[kind](row)]

    def where(self, holds: Callable[[Row], bool]) -> Scores:
        return Scores(self.wall_seconds, [row for row in self.results if holds(row)])

    def parts(self) -> tuple[Scores, Scores, Scores]:
        """The folder's pairs, and of the fresh ones those that were seen and those that were kept."""
        fresh = self.where(lambda row: row["split"] != "dev")
        seen = fresh.where(lambda row: split(row["family"]) == "seen")
        kept = fresh.where(lambda row: split(row["family"]) == "kept")
        return self.where(lambda row: row["split"] == "dev"), seen, kept


def count(rows: Iterable[Row], method: str) -> Counter[str]:
    return Counter(row["methods"][method]["score"] for row in rows)


def write(scores: Scores, notes: Notes) -> bool:
    """Write both files; whether nothing that is decidable is wrong at the default grades."""
    template = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    given, seen, kept = scores.parts()
    page = template.format(
        machine=machine(),
        minutes=scores.wall_seconds / 60,
        headline=headline(given, seen, kept, notes),
        totals=totals(given, list(WORDS)),
        difficulties=difficulties(given),
        questions=questions(scores, notes),
        robust=robust(given, seen, kept, notes),
        reference=reference(given, notes),
        seen=totals(seen, OURS),
        kept=totals(kept, OURS),
        families=f"{len(families(seen))} and {len(families(kept))}",
        fresh_difficulties=difficulties(scores.where(lambda row: row["split"] != "dev")),
        fresh_pairs=fresh_pairs(seen, notes),
        rest=rest(given, notes),
        undecidable=undecidable(scores),
    )
    (DOCS / "matching.md").write_text(page, encoding="utf-8")
    plot(given, DOCS / "matching.svg")
    print(headline(given, seen, kept, notes))
    print("written: docs/matching.md, docs/matching.svg")
    return not any(count(scores.of(kind), "loadstone")["WRONG"] for kind in ("positives", "partial", "negatives"))


def families(scores: Scores) -> set[str]:
    return {row["family"] for row in scores.results if row["kind"] != "negative"}


def headline(given: Scores, seen: Scores, kept: Scores, notes: Notes) -> str:
    rows = given.of("positives")
    ours, asked = count(rows, "loadstone")["EQUAL"], count(rows, "loadstone+answers")["EQUAL"]
    best = max(("strict", "intersect", "zip", "weightbridge"), key=lambda name: count(rows, name)["EQUAL"])
    every = (given, seen, kept)
    decided = [row for scores in every for kind in ("positives", "partial", "negatives") for row in scores.of(kind)]
    others = [row for scores in every for kind in ("permuted", "undecidable") for row in scores.of(kind)]
    wrong = count(decided, "loadstone")["WRONG"]
    claimed, left = (count(others, method)["WRONG"] for method in ("loadstone", "loadstone+reference"))
    fresh = [*seen.of("positives"), *kept.of("positives")]
    reached = f"{count(fresh, 'loadstone')['EQUAL']} and {count(fresh, 'loadstone+answers')['EQUAL']} of {len(fresh)}"
    return (
        f"**{ours} of {len(rows)}** transfers are equal with no question ({ours / len(rows):.0%}), "
        f"**{asked}** ({asked / len(rows):.0%}) after at most three answers. "
        f"`{best}`, the best of the others, reaches {count(rows, best)['EQUAL']}. "
        f"On families that came later it is {reached}. "
        f"Of the {len(decided)} pairs that names and shapes decide, {wrong} are wrong. "
        f"Of the {len(others)} that they do not, {claimed} are claimed in full all the same, "
        f"and {left} with the source model to compare outputs with."
    )


def totals(scores: Scores, methods: Sequence[str]) -> str:
    kinds = {kind: scores.of(kind) for kind in KINDS if scores.of(kind)}
    head = " | ".join(f"{kind} ({len(rows)})" for kind, rows in kinds.items())
    lines = [f"| | {head} | median s | max s |", "| --- |" + " --- |" * (len(kinds) + 2)]
    for method in methods:
        cells = []
        for rows in kinds.values():
            scored = count(rows, method)
            cells.append(" / ".join(f"**{scored[each]}**" if each == "EQUAL" else str(scored[each]) for each in SCORES))
        seconds = sorted(row["methods"][method]["seconds"] for row in scores.results)
        cells += [f"{statistics.median(seconds):.2f}", f"{seconds[-1]:.1f}"]
        lines.append(f"| {WORDS[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difficulties(scores: Scores) -> str:
    short = {name: name.replace("_", " ") for name in WORDS if name != "loadstone+reference"}
    lines = [f"| what is needed | pairs | {' | '.join(short.values())} |", "| --- |" + " --- |" * (len(short) + 1)]
    for difficulty in DIFFICULTIES:
        rows = [row for row in scores.of("positives") if row["difficulty"] == difficulty]
        if rows:
            scored = [count(rows, method) for method in short]
            cells = [f"{each['EQUAL']} / {each['WRONG']}" for each in scored]
            lines.append(f"| {difficulty} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def questions(scores: Scores, notes: Notes) -> str:
    rows = scores.of("positives")
    asked = {row["name"]: notes[row["name"], "loadstone+answers"]["asked"] for row in rows}
    helped = [
        row for row in rows if _score(row, "loadstone") != "EQUAL" and _score(row, "loadstone+answers") == "EQUAL"
    ]
    numbers = Counter(asked[row["name"]] for row in helped)
    after = ", ".join(f"{pairs} after {number}" for number, pairs in sorted(numbers.items()))
    wrong = sum(len(notes[row["name"], "loadstone+answers"]["wrong"]) for row in rows + scores.of("partial"))
    return (
        f"{sum(number > 0 for number in asked.values())} of the {len(rows)} positives are asked anything. "
        f"{len(helped)} become equal by answers{f': {after}' if after else ''}. "
        f"Where a load is not full, what is applied anyway with `strict=False` counts as well: over all positives and "
        f"partials **{wrong}** tensors were filled with other values than the certified ones."
    )


def robust(given: Scores, seen: Scores, kept: Scores, notes: Notes) -> str:
    lines = [
        "| variant | positives | partial | negatives | fresh positives | fresh partial | fresh negatives |",
        "| --- |" + " --- |" * 6,
    ]
    for method, words in (
        ("loadstone", "as it is"),
        ("loadstone shuffled", "keys of the file and modules of the model in random order"),
        ("loadstone hashed", "every part of the file's names replaced by a hash"),
    ):
        cells = []
        for parts in ((given,), (seen, kept)):
            for kind in ("positives", "partial", "negatives"):
                cells.append(_scored(count([row for part in parts for row in part.of(kind)], method)))
        lines.append(f"| {words} | {' | '.join(cells)} |")
    again = [pair for pair, method in notes if method == "loadstone again"]
    same = [p for p in again if notes[p, "loadstone again"]["plan"] == notes[p, "loadstone+answers"]["plan"]]
    lines.append("")
    lines.append(
        f"Two processes with `PYTHONHASHSEED` 0 and 1 gave the same plan, to the byte of its JSON, for "
        f"{len(same)} of {len(again)} pairs."
    )
    return "\n".join(lines)


def reference(scores: Scores, notes: Notes) -> str:
    lines = []
    for kind in ("permuted", "undecidable", "positives"):
        for row in scores.of(kind):
            before, now = _score(row, "loadstone"), _score(row, "loadstone+reference")
            if before != now:
                forwards = notes.get((row["name"], "loadstone+reference"), {}).get("forwards", "?")
                times = "1 forward" if forwards == 1 else f"{forwards} forwards"
                lines.append(f"- `{row['name']}`: {before} becomes {now} ({times})")
    for row in scores.of("negatives"):
        note = notes.get((row["name"], "loadstone+reference"), {})
        if note.get("confirmed") and _score(row, "loadstone+reference") == "WRONG":
            lines.append(
                f"- `{row['name']}`: no state dict decides it, so that any full transfer counts as wrong above; "
                f"trying finds the one with equal outputs"
            )
    return "\n".join(lines) or "It changed no score."


def fresh_pairs(seen: Scores, notes: Notes) -> str:
    """What is not right with no question; of the kept families only the totals are said."""
    lines = [f"| pair | {' | '.join(OURS)} | why |", "| --- |" + " --- |" * (len(OURS) + 1)]
    for row in seen.results:
        scored = [_score(row, method).lower() for method in OURS]
        if scored[1] != ("refused" if row["kind"] == "negative" else "equal"):
            lines.append(f"| {row['name']} | {' | '.join(scored)} | {_why(row, notes)} |")
    return "\n".join(lines)


def undecidable(scores: Scores) -> str:
    """What no state dict can decide, and what did."""
    lines = ["| pair | what is hidden | loadstone | with the source model |", "| --- | --- | --- | --- |"]
    for kind in ("permuted", "undecidable"):
        for row in scores.of(kind):
            note = row["note"] or ("stride, a setting of a module" if "stride" in row["name"] else "")
            words = [_score(row, method).lower() for method in ("loadstone", "loadstone+reference")]
            lines.append(f"| {row['name']} | {note} | {words[0]} | {words[1]} |")
    return "\n".join(lines)


def rest(scores: Scores, notes: Notes) -> str:
    lines = ["| pair | with no question | after answers | why |", "| --- | --- | --- | --- |"]
    for kind in ("positives", "permuted", "partial", "negatives", "undecidable"):
        for row in scores.of(kind):
            default, answered = _score(row, "loadstone"), _score(row, "loadstone+answers")
            if default == "EQUAL" or (kind == "negatives" and default == "REFUSED"):
                continue
            lines.append(f"| {row['name']} | {default.lower()} | {answered.lower()} | {_why(row, notes)} |")
    return "\n".join(lines)


def _why(row: Row, notes: Notes) -> str:
    asked = notes.get((row["name"], "loadstone+answers"), {}).get("asked", 0)
    result = row["methods"]["loadstone"]
    if result["score"] == "WRONG":
        return "names and shapes say nothing of it; " + (row["note"] or "the two models compute different things")
    if asked:
        return f"{asked} question{'s' if asked != 1 else ''} asked"
    if "why" in result:
        too_little = "no-structural-match" in result["why"]
        return "too little has a partner" if too_little else str(result["why"])[:80]
    return f"{result['missing']} tensors of the model without a source"


def _score(row: Row, method: str) -> str:
    return str(row["methods"][method]["score"])


def _scored(scored: Counter[str]) -> str:
    return " / ".join(str(scored[each]) for each in SCORES)


def plot(scores: Scores, path: Path) -> None:
    """What becomes of the positives, a bar a method."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "loadstone", "font.family": "sans-serif", "font.size": 9})
    methods = [name for name in WORDS if name != "loadstone+reference"]
    rows = scores.of("positives")
    figure, panel = pyplot.subplots(figsize=(7.5, 0.36 * len(methods) + 0.9), layout="constrained")
    left = [0] * len(methods)
    for score, color, label in (
        ("EQUAL", "#0b6e4f", "equal output"),
        ("REFUSED", "#d5d9df", "refused, or asked"),
        ("WRONG", "#c0392b", "wrong, and nothing said"),
    ):
        widths = [count(rows, method)[score] for method in methods]
        panel.barh(methods, widths, left=left, color=color, height=0.7, label=label)
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 2:
                tone = "#333333" if score == "REFUSED" else "white"
                panel.text(start + width / 2, place, str(width), va="center", ha="center", color=tone)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    panel.invert_yaxis()
    panel.set_xlim(0, len(rows))
    panel.xaxis.set_visible(False)
    panel.spines[["top", "right", "bottom", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.set_title(f"{len(rows)} transfers that names and shapes decide", loc="left", fontsize=10, fontweight="bold")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
