"""Files that a command line meets."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest


class Payload:
    """Pickled, it asks for a shell."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch must_not_appear",)


@pytest.fixture
def dangerous_file(tmp_path: Path) -> Path:
    """A torch zip whose pickle calls a shell beside harmless values."""
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 12, "hook": Payload()}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path
