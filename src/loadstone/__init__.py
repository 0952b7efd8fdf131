"""Loadstone: open any PyTorch model file without running it, plan how it fits a model, load it all or nothing.

    import loadstone as ls

    checkpoint = ls.open("resnet50.pth")           # headers only; no torch
    plan = ls.plan(model, "resnet50.pth")          # key by key, before a byte is copied
    ls.load(model, "resnet50.pth")                 # or an error that says what to decide, the model untouched

Names that need torch are resolved on first use (PEP 562), so that opening and inspecting never import it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loadstone.checkpoint import Checkpoint
from loadstone.checkpoint import open_checkpoint as open
from loadstone.errors import (
    Diagnostic,
    Fix,
    FormatError,
    IntegrityError,
    LimitError,
    LoadstoneError,
    MatchError,
    MissingFileError,
    RecipeError,
    SaveError,
    SurgeryError,
    UnsafeError,
)
from loadstone.io.limits import Limits
from loadstone.matching.adapters import classes, interpolate
from loadstone.matching.plan import Action, Plan
from loadstone.matching.structure.items import Question
from loadstone.runs.keep import Keep
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule

if TYPE_CHECKING:
    from loadstone.checks.report import VerifyReport
    from loadstone.checks.verify import verify
    from loadstone.model.build import build
    from loadstone.model.export import Exported, export
    from loadstone.model.freezing import freeze, unfreeze, unfreeze_next
    from loadstone.model.groups import parameter_groups
    from loadstone.model.load import load, plan
    from loadstone.model.save import Saved, save
    from loadstone.model.surgery.head import replace_head
    from loadstone.model.surgery.inputs import replace_input
    from loadstone.model.surgery.layers import append, insert, remove, replace
    from loadstone.model.surgery.result import Change, Edit
    from loadstone.model.trainable import trainable
    from loadstone.training.optimizers import OptimizerPlan, named_state, names_of, plan_optimizer
    from loadstone.training.progress import Progress
    from loadstone.training.run import Run

__version__ = "0.1.0"

_NEEDS_TORCH = {
    "Change": "loadstone.model.surgery.result",
    "Edit": "loadstone.model.surgery.result",
    "Exported": "loadstone.model.export",
    "OptimizerPlan": "loadstone.training.optimizers",
    "Progress": "loadstone.training.progress",
    "Run": "loadstone.training.run",
    "Saved": "loadstone.model.save",
    "append": "loadstone.model.surgery.layers",
    "build": "loadstone.model.build",
    "export": "loadstone.model.export",
    "freeze": "loadstone.model.freezing",
    "insert": "loadstone.model.surgery.layers",
    "load": "loadstone.model.load",
    "named_state": "loadstone.training.optimizers",
    "names_of": "loadstone.training.optimizers",
    "parameter_groups": "loadstone.model.groups",
    "plan": "loadstone.model.load",
    "plan_optimizer": "loadstone.training.optimizers",
    "remove": "loadstone.model.surgery.layers",
    "replace": "loadstone.model.surgery.layers",
    "replace_head": "loadstone.model.surgery.head",
    "replace_input": "loadstone.model.surgery.inputs",
    "save": "loadstone.model.save",
    "trainable": "loadstone.model.trainable",
    "unfreeze": "loadstone.model.freezing",
    "unfreeze_next": "loadstone.model.freezing",
}


_WHEN_USED = {  # without torch, but with modules that opening a file does not need
    "VerifyReport": "loadstone.checks.report",
    "verify": "loadstone.checks.verify",
}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(_NEEDS_TORCH[name]), name)
    if name in _WHEN_USED:
        return getattr(import_module(_WHEN_USED[name]), name)
    raise AttributeError(f"module 'loadstone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Action",
    "Change",
    "Checkpoint",
    "Diagnostic",
    "Edit",
    "Exported",
    "Fix",
    "FormatError",
    "IntegrityError",
    "Keep",
    "LimitError",
    "Limits",
    "LoadstoneError",
    "MatchError",
    "MissingFileError",
    "Opaque",
    "OptimizerPlan",
    "Plan",
    "Progress",
    "Question",
    "RecipeError",
    "Run",
    "SaveError",
    "Saved",
    "SavedModule",
    "SurgeryError",
    "TensorInfo",
    "UnsafeError",
    "VerifyReport",
    "append",
    "build",
    "classes",
    "export",
    "freeze",
    "insert",
    "interpolate",
    "load",
    "named_state",
    "names_of",
    "open",
    "parameter_groups",
    "plan",
    "plan_optimizer",
    "remove",
    "replace",
    "replace_head",
    "replace_input",
    "save",
    "trainable",
    "unfreeze",
    "unfreeze_next",
    "verify",
]
