"""Run all pairs and write docs/matching.md; the exit status is 1 where something at the default grades is wrong."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.pairs import notes, place, report

PEERS = ("strict", "intersect", "zip", "shape_order", "weightbridge")
OURS = ("loadstone", "loadstone+answers", "loadstone+reference")
VARIANTS = ("loadstone shuffled", "loadstone hashed")
AGAIN = "bert,vit,rnn,attention,unet,mixer,tutorial,opaque,reordered,bn-folded,NEG"  # what is small enough to repeat
METHODS = place.HERE / "methods.py"


KEPT = place.ROOT / "build" / "pairs"  # scores and notes of the last run


def main(arguments: list[str]) -> int:
    """No argument measures; `--record` and `--certify` write the data that is kept in the repository."""
    if arguments == ["--report"]:
        return _report()
    with tempfile.TemporaryDirectory(prefix="loadstone-pairs-") as name:
        folder = place.copy(Path(name))
        if arguments == ["--record"]:
            place.run(folder, ["-m", "benchmarks.pairs.record", str(place.ROOT / "tests" / "data")], notes=KEPT)
            return 0
        if arguments == ["--certify"]:
            place.run(folder, ["-m", "benchmarks.pairs.certify", str(place.CERTIFICATES)], notes=KEPT)
            return 0
        if arguments:
            sys.exit("usage: python -m benchmarks.pairs [--report | --record | --certify]")
        shutil.rmtree(KEPT, ignore_errors=True)
        (KEPT / "notes").mkdir(parents=True)
        _measure(folder, "all", (*PEERS, *OURS, *VARIANTS))
        _measure(folder, "again", ("loadstone again",), hash_seed=1, only=AGAIN)
        return _report()


def _measure(folder: Path, name: str, methods: tuple[str, ...], *, hash_seed: int = 0, only: str = "") -> None:
    arguments = ["run.py", "--pairs", only, "--out", str(KEPT / f"{name}.json")]
    arguments += ["--methods", ",".join(methods), "--extra", str(METHODS)]
    place.run(folder, arguments, notes=KEPT / "notes", hash_seed=hash_seed)


def _report() -> int:
    """Write the page from the scores of the last run."""
    scores = report.Scores(**json.loads((KEPT / "all.json").read_text()))
    return 0 if report.write(scores, notes.read(KEPT / "notes")) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
