"""Keys that PyTorch itself wrote differently at different times, and keys that may be absent on one side by rule."""

from __future__ import annotations

from collections.abc import Iterator

from loadstone.keys import leaf
from loadstone.matching.candidates import Candidate, counter_origin
from loadstone.matching.schema import Schema, Slot

# The two spellings of one tensor, {p} being the parameter's name: torch/nn/utils/weight_norm.py and spectral_norm.py
# against torch/nn/utils/parametrizations.py (_WeightNorm: original0 is g, original1 is v; _SpectralNorm: buffers).
_SPELLINGS: tuple[tuple[str, str, str], ...] = (
    ("{p}_g", "parametrizations.{p}.original0", "weight_norm's other name"),
    ("{p}_v", "parametrizations.{p}.original1", "weight_norm's other name"),
    ("{p}_orig", "parametrizations.{p}.original", "spectral_norm's other name"),
    ("{p}_u", "parametrizations.{p}.0._u", "spectral_norm's other name"),
    ("{p}_v", "parametrizations.{p}.0._v", "spectral_norm's other name"),
)


def respell(candidates: list[Candidate], schema: Schema) -> list[Candidate]:
    """Give the model's spelling to candidates that have the other one, where it is free and the shapes agree."""
    taken = {candidate.name for candidate in candidates}
    respelled = []
    for candidate in candidates:
        if candidate.name not in schema.slots:
            for name, how in _other_spellings(candidate.name):
                slot = schema.slots.get(name)
                if slot is not None and name not in taken and slot.shape == candidate.info.shape:
                    candidate = candidate.renamed(name, how)
                    taken.add(name)
                    break
        respelled.append(candidate)
    return respelled


def _other_spellings(name: str) -> Iterator[tuple[str, str]]:
    module, dot, last = name.rpartition(".")
    for old, new, how in _SPELLINGS:
        ending = old.removeprefix("{p}")
        if last.endswith(ending) and len(last) > len(ending):
            yield f"{module}{dot}{new.format(p=last.removesuffix(ending))}", how
    module, mark, rest = name.rpartition("parametrizations.")
    if mark and (not module or module.endswith(".")):
        parameter, _, inner = rest.partition(".")
        for old, new, how in _SPELLINGS:
            if inner == new.removeprefix("parametrizations.{p}."):
                yield module + old.format(p=parameter), how


def may_be_absent(slot: Slot) -> tuple[str, str] | None:
    """How and why a slot may stay without a source although nobody said so; None where it needs one."""
    origin = counter_origin(slot.key, slot)
    if origin is not None:
        return "profiler counter", f"{origin}; the checkpoint has none"
    name = leaf(slot.key)
    if name == "num_batches_tracked":
        # torch/nn/modules/batchnorm.py _NormBase._load_from_state_dict: absent before version 2 of the layer
        return "num_batches_tracked", "the checkpoint has none, as files from before PyTorch 0.4.1"
    if name == "_extra_state":
        return "extra state", "the checkpoint has none"
    return None


def may_be_left_over(candidate: Candidate, schema: Schema) -> tuple[str, str] | None:
    """How and why a tensor of the checkpoint may stay unused although nobody said so; None where it is a finding."""
    origin = counter_origin(candidate.name, candidate.info) or counter_origin(candidate.key, candidate.info)
    if origin is not None:
        return "profiler counter", origin
    if candidate.name in schema.non_persistent:
        return "non-persistent buffer", "the model rebuilds it"
    if leaf(candidate.name) == "_extra_state":
        return "extra state", "the model has no place for it"
    return None
