"""Certify the fresh pairs, inside a copy of the folder: writes fresh.json.  `python -m benchmarks.pairs --certify`.

The folder's own test: with the oracle's mapping the target computes what the source computes, in float64, and before
it did not; the obvious guess at a negative is wrong; a partial pair has something to fill.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import verify  # type: ignore[import-not-found]  # the folder's own
from core import PAIRS  # type: ignore[import-not-found]
from pairs import STORAGE  # type: ignore[import-not-found]  # registers all pairs

KEPT = ("name", "family", "kind", "tensors", "params", "diff", "kinds", "ok", "error")


def main(path: str) -> None:
    found = []
    for pair in (each for each in PAIRS if each.split == "heldout"):
        start = time.time()
        try:
            certificate = verify.check(pair)
        except Exception as error:
            certificate = {"name": pair.name, "ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
        said = "ok" if certificate["ok"] else f"NOT CERTIFIED {certificate.get('diff')} {certificate.get('error', '')}"
        print(f"{time.time() - start:5.1f} s  {pair.name:45s} {said}", flush=True)
        found.append({name: certificate[name] for name in KEPT if name in certificate})
    lines = ",\n ".join(json.dumps(certificate) for certificate in found)
    with open(path, "w") as file:
        file.write(f"[\n {lines}\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert STORAGE
    main(sys.argv[1])
