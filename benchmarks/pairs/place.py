"""Where the pairs are, and a copy of them to work in.

The folder brings its own runner, oracles and certificates; nothing in it is changed.  Our fresh pairs join it under
the name its `pairs.py` looks for, with certificates of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
CERTIFICATES = HERE / "fresh.json"


def find() -> Path:
    """The folder of pairs; ends the process with the places looked at where there is none."""
    said = os.environ.get("LOADSTONE_PAIRS")
    places = [Path(said)] if said else [ROOT.parent / "shared" / "pairs"]
    for place in places:
        if (place / "run.py").exists():
            return place
    looked = ", ".join(str(place) for place in places)
    sys.exit(f"no pairs: looked for run.py in {looked}; name the folder with LOADSTONE_PAIRS=FOLDER")


def copy(into: Path, *, fresh: bool = True) -> Path:
    """A copy of the folder, with our fresh pairs in it."""
    folder = into / "pairs"
    shutil.copytree(find(), folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    if fresh:
        (folder / "pairs_heldout.py").write_text("import benchmarks.pairs.fresh  # registers its pairs\n")
        certificates = json.loads((folder / "verify.json").read_text())
        ours = json.loads(CERTIFICATES.read_text()) if CERTIFICATES.exists() else []
        (folder / "verify.json").write_text(json.dumps(certificates + ours))
    return folder


def run(folder: Path, arguments: Sequence[str], *, notes: Path, hash_seed: int = 0) -> None:
    """Run a script of the folder with this repository's Loadstone."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "PYTHONHASHSEED": str(hash_seed),
        "OMP_NUM_THREADS": "1",
        "LOADSTONE_PAIRS_NOTES": str(notes),
    }
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True)
