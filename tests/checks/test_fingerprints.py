"""The digest of a tensor is that of its values, wherever they lie and however they are strided."""

from __future__ import annotations

import pytest
import torch

import loadstone as ls
from loadstone.checks.fingerprints import differing, digest_of
from loadstone.io.digests import digest
from loadstone.manifest import Fingerprint


def expected(tensor: torch.Tensor) -> str:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return digest(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2, torch.int64, torch.bool, torch.complex128]
)
@pytest.mark.parametrize("kind", ["plain", "transposed", "slice", "expanded", "empty", "scalar"])
def test_the_digest_is_of_the_values_in_row_major_order(tmp_path, dtype, kind):
    values = torch.randn(6, 10, generator=torch.Generator().manual_seed(1)).mul(50).to(dtype)
    tensor = {
        "plain": values,
        "transposed": values.t(),
        "slice": values[1:5, 2:9:3],
        "expanded": values[:, :1].expand(6, 4),
        "empty": values[:0],
        "scalar": values[2, 3],
    }[kind]
    torch.save({"t": tensor}, tmp_path / "t.pth")
    with ls.open(tmp_path / "t.pth") as checkpoint:
        assert digest_of(checkpoint.tensors["t"]) == expected(tensor)


def test_a_tensor_without_dense_bytes_has_no_digest(tmp_path):
    torch.save({"s": torch.eye(3).to_sparse(), "m": torch.empty(3, device="meta")}, tmp_path / "t.pth")
    with ls.open(tmp_path / "t.pth") as checkpoint:
        assert {digest_of(info) for info in checkpoint.tensors.values() if info.key in ("s", "m")} == {None}


def test_what_differs_and_what_is_unknown_are_told_apart(tmp_path):
    same, other, new = torch.ones(3), torch.zeros(3), torch.full((3,), 2.0)
    torch.save({"same": same, "other": other, "new": new}, tmp_path / "t.pth")
    marks = {key: Fingerprint("float32", (3,), expected(same)) for key in ("same", "other")}
    with ls.open(tmp_path / "t.pth") as checkpoint:
        found, unknown = differing(marks, checkpoint.tensors.values(), "t.pth")
    assert [diagnostic.keys for diagnostic in found] == [("other",)]
    assert found[0].code == "bad-digest"
    assert "`t.pth`" in found[0].message
    assert unknown == ["new"]
