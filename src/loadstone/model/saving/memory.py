"""The bytes of tensors and storages in pieces, so that nothing large is copied, from a GPU or out of strides."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import torch

PIECE_NBYTES = 2 * 1024 * 1024


def pieces_of(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The values of a dense tensor in row-major order, as bytes; copied in pieces where they do not lie so."""
    tensor = tensor.detach()
    if tensor.numel() == 0:
        return
    if tensor.is_contiguous() and not (tensor.is_conj() or tensor.is_neg()):
        flat = tensor.view(-1)
        for piece in _split(flat, max(PIECE_NBYTES // tensor.element_size(), 1)):
            yield _held(piece.to("cpu"))
        return
    row_nbytes = tensor[0].numel() * tensor.element_size() if tensor.dim() else 0
    if row_nbytes > PIECE_NBYTES:
        for row in tensor:
            yield from pieces_of(row)
        return
    for rows in _split(tensor, max(PIECE_NBYTES // row_nbytes, 1)) if tensor.dim() else (tensor,):
        yield _held(rows.resolve_conj().resolve_neg().contiguous().to("cpu"))


def storage_pieces(storage: torch.UntypedStorage, spans: tuple[tuple[int, int], ...]) -> Iterator[memoryview]:
    """The bytes of a storage from first to stop of each span."""
    memory = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    for first, stop in spans:
        yield from pieces_of(memory[first:stop])


def _split(tensor: torch.Tensor, rows: int) -> Iterator[torch.Tensor]:
    return (tensor[start : start + rows] for start in range(0, tensor.shape[0], rows))


def _held(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; it lives as long as the view."""
    array = (ctypes.c_ubyte * (tensor.numel() * tensor.element_size())).from_address(tensor.data_ptr())
    array.tensor = tensor  # type: ignore[attr-defined]  # the view holds the array, the array the tensor
    return memoryview(array).cast("B")
