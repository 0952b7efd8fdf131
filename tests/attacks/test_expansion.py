"""Some bytes that say they are 2^40 elements, as torch writes them: reading such a tensor takes no more memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

import loadstone as ls
from loadstone.errors import FormatError
from loadstone.tensors import TensorInfo

MANY = 2**40
INDICES = torch.tensor([[0, 1], [0, 1]])

# torch's beta warnings, while the files are made
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def saved(path: Path, tensor: torch.Tensor) -> TensorInfo:
    torch.save({"w": tensor}, path / "w.pt")
    return ls.open(path / "w.pt").tensors["w"]


def one(dtype: torch.dtype = torch.complex64) -> torch.Tensor:
    return torch.full((1,), 1 + 2j, dtype=dtype)


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(1), 0.5, 0, torch.qint8)


EXPANDED: list[Callable[[], torch.Tensor]] = [
    lambda: torch.ones(1).expand(MANY),
    lambda: one().conj().expand(MANY),
    lambda: one().conj().imag.expand(MANY),
    lambda: quantized().expand(MANY),
]


@pytest.mark.parametrize("make", EXPANDED, ids=["plain", "conj", "neg", "quantized"])
def test_expanded_tensor_is_read_expanded(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    expected = make()
    read = saved(tmp_path, expected).read()
    assert (read.shape, read.stride()) == (expected.shape, expected.stride())
    assert torch.equal(read[:3], expected[:3])


@pytest.mark.parametrize("make", EXPANDED[:3], ids=["plain", "conj", "neg"])
def test_expanded_tensor_is_an_expanded_array(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    tensor = make()
    array = saved(tmp_path, tensor).numpy()
    assert array.shape == (MANY,)
    assert array[:3].tolist() == tensor[:3].tolist()


@pytest.mark.parametrize("tensor", [torch.ones(1).expand(2**31, 2**31), torch.ones(0, 1).expand(0, 2**62)])
def test_more_elements_than_numpy_can_count_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(FormatError, match=r"unsupported-feature.*numpy"):
        saved(tmp_path, tensor).numpy()


def test_indices_that_repeat_without_end_are_refused(tmp_path: Path) -> None:
    indices = torch.zeros(1, 1, dtype=torch.long).expand(1, MANY)
    with pytest.raises(FormatError, match=r"tensor-out-of-bounds"):
        saved(tmp_path, torch.sparse_coo_tensor(indices, torch.ones(1).expand(MANY), (5,), check_invariants=False))


def test_rows_that_repeat_without_end_are_refused(tmp_path: Path) -> None:
    rows = torch.zeros(1, dtype=torch.long).expand(2**33)
    with pytest.raises(FormatError, match=r"tensor-out-of-bounds"):
        saved(
            tmp_path,
            torch.sparse_csr_tensor(rows, rows[:0], torch.ones(0), (2**33 - 1, 5), check_invariants=False),
        )


@pytest.mark.parametrize(
    "tensor",
    [
        torch.sparse_coo_tensor(torch.arange(3).expand(2, 3), torch.ones(1).expand(3), (3, 3), check_invariants=True),
        torch.sparse_coo_tensor(INDICES, torch.ones(2, 1).expand(2, 4), (2, 2, 4), check_invariants=True),
    ],
    ids=["diagonal", "values"],
)
def test_sparse_tensor_that_shares_numbers_is_read(tmp_path: Path, tensor: torch.Tensor) -> None:
    assert torch.equal(saved(tmp_path, tensor).read().to_dense(), tensor.to_dense())


def test_nested_rows_larger_than_their_buffer_are_refused(tmp_path: Path) -> None:
    table = torch.tensor([[MANY]])
    info = saved(tmp_path, torch._nested_view_from_buffer(torch.ones(1), table, table * 0, torch.tensor([0])))
    with pytest.raises(FormatError, match=r"tensor-out-of-bounds.*1,099,511,627,776 elements, its buffer has 1"):
        info.read()


def test_nested_tables_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    table = torch.tensor([1])

    class Nested:
        def __reduce__(self) -> tuple[object, tuple[torch.Tensor, ...]]:
            return torch._utils._rebuild_nested_tensor, (torch.ones(1), table, table, table * 0)

    torch.save({"w": Nested()}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=r"tensor-out-of-bounds"):
        ls.open(tmp_path / "w.pt")


def test_chunk_that_shows_more_than_it_has_is_refused(tmp_path: Path) -> None:
    """Two chunks of a tensor, one of them put there as an expanded one."""
    dcp.save({"w": torch.ones(4)}, checkpoint_id=tmp_path)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    description = metadata.state_dict_metadata["w"]
    (place,) = metadata.storage_data
    chunk = description.chunks[0]
    description.size = torch.Size([2 * MANY])
    description.chunks = [type(chunk)(offsets=torch.Size([start]), sizes=torch.Size([MANY])) for start in (0, MANY)]
    where = metadata.storage_data.pop(place)
    torch.save(torch.ones(1).expand(MANY), tmp_path / where.relative_path)
    where.offset, where.length = 0, (tmp_path / where.relative_path).stat().st_size
    for each in description.chunks:
        metadata.storage_data[type(place)("w", each.offsets, 0)] = where
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(FormatError, match=r"header-invalid.*fewer bytes than it shows"):
        ls.open(tmp_path)


def test_more_dimensions_than_numpy_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"unsupported-feature.*65 dimensions"):
        saved(tmp_path, torch.ones((1,) * 65)).numpy()


def test_step_that_is_never_taken_may_be_of_any_size(tmp_path: Path) -> None:
    assert saved(tmp_path, torch.ones(1).as_strided((1,), (2**62,))).numpy().tolist() == [1]
