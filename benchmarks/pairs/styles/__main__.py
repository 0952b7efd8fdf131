"""Totals of generated networks, a line a kind, and every tensor that was filled wrongly."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import get_args

from benchmarks.pairs.styles.judge import judged
from benchmarks.pairs.styles.kinds import KINDS, Sort, drawn

_SHOWN = 3  # wrong tensors of a pair


def main(arguments: list[str]) -> int:
    reader = argparse.ArgumentParser(prog="python -m benchmarks.pairs.styles", description=__doc__)
    reader.add_argument("count", nargs="?", type=int, default=30, help="pairs of each kind and sort")
    reader.add_argument("first", nargs="?", type=int, default=0, help="seed of the first")
    reader.add_argument("--only", default="", help="kinds, or kind:sort, with commas between")
    reader.add_argument("-v", "--verbose", action="store_true", help="both lists of keys of what is wrong")
    chosen = reader.parse_args(arguments)
    lines, is_bad = [], False
    for kind in KINDS:
        for sort in get_args(Sort):
            if chosen.only and not {kind, sort, f"{kind}:{sort}"} & set(chosen.only.split(",")):
                continue
            line, known = _totals(kind, sort, range(chosen.first, chosen.first + chosen.count), chosen.verbose)
            lines.append(line)
            is_bad |= known
    print(f"{'':20}{'complete':>9}{'partial':>9}{'refused':>9}{'WRONG':>7}{'known':>7}"
          f"{'equal':>7}{'≤ 3 answers':>12}{'questions':>11}{'slowest':>13}")  # fmt: skip
    print(*lines, sep="\n")
    return int(is_bad)


def _totals(kind: str, sort: Sort, seeds: range, verbose: bool) -> tuple[str, bool]:
    tally: Counter[str] = Counter()
    slowest = 0.0
    for seed in seeds:
        pair = drawn(kind, sort, seed)
        finding = judged(pair)
        slowest = max(slowest, finding.seconds)
        word = "known" if finding.wrong and pair.known else finding.outcome
        tally[word] += 1
        tally["questions"] += finding.questions
        tally["equal"] += finding.is_equal and not finding.wrong
        tally["settled"] += finding.is_settled and not finding.wrong
        if finding.wrong and (verbose or not pair.known):
            print(f"{kind}:{sort} {seed}: {len(finding.wrong)} of {len(pair.target.items)} wrong {pair.known}")
            for one in finding.wrong[: None if verbose else _SHOWN]:
                print(f"    {one.target} <- {one.source} | {one.grade} | {one.evidence}")
            if verbose:
                for side in (pair.source, pair.target):
                    print("   ", *(f"{item.key}{list(item.shape)}" for item in side.items), sep="\n      ")
    columns = [(tally[word], width) for word, width in (
        ("complete", 9), ("partial", 9), ("refused", 9), ("WRONG", 7), ("known", 7), ("equal", 7), ("settled", 12),
        ("questions", 11),
    )]  # fmt: skip
    numbers = "".join(f"{number:>{width}}" for number, width in columns)
    return f"{kind + ' ' + sort:20}{numbers}{slowest:>11.2f} s", tally["WRONG"] > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
