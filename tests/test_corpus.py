"""The corpus of real, odd and hostile files, where it lies beside the repository (shared/corpus.tar.xz).

Readable files open and give their tensors to the bit; all others are refused with an error of ours, or are shown with
an error-severity diagnostic; nothing in any of them ever runs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

import loadstone as ls

ARCHIVE = Path(__file__).parents[2] / "shared" / "corpus.tar.xz"
MARKER = "CKPT_PWNED"  # every payload of the corpus only creates /tmp/CKPT_PWNED*


def manifest() -> list[dict[str, Any]]:
    if not ARCHIVE.exists():
        return []
    with tarfile.open(ARCHIVE) as archive:
        member = archive.extractfile("corpus/manifest.json")
        assert member is not None
        cases: list[dict[str, Any]] = json.load(member)["cases"]
    return cases


CASES = manifest()
READABLE = [case for case in CASES if case["expectation"] == "readable"]
REFUSED = [case for case in CASES if case["expectation"] != "readable"]

pytestmark = pytest.mark.skipif(not CASES, reason="shared/corpus.tar.xz is not beside the repository")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "corpus"


def digest(tensor: torch.Tensor) -> str:
    values = tensor.contiguous().reshape(-1)
    data = values.view(torch.uint8) if values.numel() else torch.empty(0, dtype=torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def assert_as_expected(expected: dict[str, Any], info: ls.TensorInfo) -> None:
    assert list(info.shape) == expected["shape"]
    assert info.dtype == expected["dtype"]
    tensor = info.read()
    if "parts" in expected:
        for name, part in expected["parts"].items():
            value = getattr(tensor, f"_{name}" if tensor.layout == torch.sparse_coo else name)()
            assert digest(value) == part["sha256"], name
    elif "int_repr_sha256" in expected:
        assert digest(tensor.int_repr()) == expected["int_repr_sha256"]
        assert str(tensor.qscheme()).removeprefix("torch.") == expected["qscheme"]
    else:
        assert digest(tensor) == expected["sha256"]


def markers() -> list[Path]:
    return list(Path("/tmp").glob(f"{MARKER}*"))


@pytest.mark.parametrize("case", READABLE, ids=lambda case: case["file"])
def test_readable_file_gives_its_tensors_to_the_bit(case: dict[str, Any], corpus: Path) -> None:
    with ls.open(corpus / case["file"]) as checkpoint:
        tensors = checkpoint.tensors
        if case.get("scan") in ("clean", "unknown-classes"):
            assert [one for one in checkpoint.diagnostics if one.severity == "error"] == []
        if "expected" in case:
            wanted = json.loads((corpus / case["expected"]).read_text())
            for expected in wanted:
                assert_as_expected(expected, tensors[".".join(map(str, expected["path"]))])
    assert markers() == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["file"])
def test_hostile_file_is_refused_or_shown_inertly(case: dict[str, Any], corpus: Path) -> None:
    try:
        with ls.open(corpus / case["file"]) as checkpoint:
            assert len(checkpoint.tensors) >= 0
            errors = [one for one in checkpoint.diagnostics if one.severity == "error"]
    except ls.LoadstoneError as error:
        errors = list(error.diagnostics)
    assert errors or "expected" in case  # some files that torch refuses can be read: a bonus, not a danger
    assert markers() == []


def test_inspecting_the_whole_corpus_stays_inside_its_limits(corpus: Path) -> None:
    """One process opens every case in turn: no signal, and never more than 1 GiB of memory."""
    program = """
import sys
import loadstone as ls
for line in sys.stdin:
    try:
        with ls.open(line.strip()) as checkpoint:
            len(checkpoint.tensors), checkpoint.diagnostics
    except ls.LoadstoneError:
        pass
assert "torch" not in sys.modules
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])  # getrusage would count what the parent had when it forked
"""
    paths = "\n".join(str(corpus / case["file"]) for case in CASES)
    done = subprocess.run([sys.executable, "-c", program], input=paths, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2**28
