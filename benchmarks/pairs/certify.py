"""Certify the fresh pairs, inside a copy of the folder: writes fresh.json.  `python -m benchmarks.pairs --certify`.

Where an oracle is named (registration order, order of first calls) it must give equal output.  Where none is, or it
does not, the pair counts only once some method has reached equal output with it, in the run that is reported.
"""

from __future__ import annotations

import json
import sys
import time

import oracle  # type: ignore[import-not-found]  # the folder's own
import torch
import verify  # type: ignore[import-not-found]
from common import rel_diff  # type: ignore[import-not-found]
from core import PAIRS  # type: ignore[import-not-found]
from pairs import STORAGE  # type: ignore[import-not-found]  # registers all pairs


def main(path: str) -> None:
    found = []
    for pair in (each for each in PAIRS if each.split == "heldout"):
        start = time.time()
        certificate = {"name": pair.name, "ok": True, "kinds": None, "tensors": None, "certified": "no"}
        try:
            built = pair.make()
            certificate["tensors"] = len(built.stored)
            if pair.kind == "negative":
                certificate["certified"] = "by construction"
            elif pair.oracle is not None:
                own = built.tgt.state_dict()
                specs = built.specs()
                verify.put(built.tgt, oracle.transfer(built.native, own, *specs))
                apart = rel_diff(built.target_out(), built.y)
                certificate |= {"diff": apart if apart < 1e300 else 1e300}
                if apart <= pair.tol:
                    stored = {key: specs[0][key] for key in built.stored if key in specs[0]}
                    kinds = oracle.kinds(built.stored, own, stored, specs[1])
                    certificate |= {"certified": type(pair.oracle).__name__, "kinds": kinds}
        except Exception as error:
            certificate["error"] = f"{type(error).__name__}: {error}"[:300]
            certificate["ok"] = "built" in dir() and pair.kind != "negative"
        print(f"{time.time() - start:5.1f} s  {pair.name:45s} {certificate['certified']} {certificate.get('diff', '')} "
              f"{certificate.get('error', '')}", flush=True)  # fmt: skip
        found.append(certificate)
    with open(path, "w") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert STORAGE
    main(sys.argv[1])
