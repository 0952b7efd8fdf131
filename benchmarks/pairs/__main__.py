"""Run all pairs, write docs/matching.md; the exit status is 1 where something at the default grades is wrong."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import notes, place, report

PEERS = ("strict", "intersect", "zip", "shape_order", "weightbridge")
OURS = ("loadstone", "loadstone+answers", "loadstone+reference")
VARIANTS = ("loadstone shuffled", "loadstone hashed")
AGAIN = "bert,vit,rnn,attention,unet,mixer,tutorial,opaque,reordered,bn-folded,NEG"  # what is small enough to repeat
METHODS = place.HERE / "methods.py"


def main(arguments: list[str]) -> int:
    """`--record` and `--certify` write the data that is kept in the repository instead."""
    with tempfile.TemporaryDirectory(prefix="loadstone-pairs-") as name:
        folder, kept = place.copy(Path(name)), Path(name) / "notes"
        kept.mkdir()
        if arguments == ["--record"]:
            target = place.ROOT / "tests" / "data" / "pairs.json.xz"
            place.run(folder, ["-m", "benchmarks.pairs.record", str(target)], notes=kept)
            return 0
        if arguments == ["--certify"]:
            place.run(folder, ["-m", "benchmarks.pairs.certify", str(place.CERTIFICATES)], notes=kept)
            return 0
        if arguments:
            sys.exit("usage: python -m benchmarks.pairs [--record | --certify]")
        given = _scores(folder, "dev", (*PEERS, *OURS, *VARIANTS), kept)
        fresh = _scores(folder, "heldout", ("weightbridge", *OURS, *VARIANTS), kept)
        _scores(folder, "dev", ("loadstone again",), kept, hash_seed=1, only=AGAIN)
        return 0 if report.write(given, fresh, notes.read(kept)) else 1


def _scores(
    folder: Path, split: str, methods: tuple[str, ...], kept: Path, *, hash_seed: int = 0, only: str = ""
) -> report.Scores:
    out = folder / f"scores-{split}-{hash_seed}.json"
    arguments = ["run.py", "--split", split, "--methods", ",".join(methods), "--extra", str(METHODS), "--out", str(out)]
    place.run(folder, [*arguments, "--pairs", only], notes=kept, hash_seed=hash_seed)
    return report.Scores(**json.loads(out.read_text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
