import io
from pathlib import Path

import pytest
import torch
from torch import nn

from loadstone.checkpoint import open_checkpoint
from loadstone.errors import LimitError
from loadstone.formats.contents import Context
from loadstone.formats.pickles.modules import Budget, complete
from loadstone.formats.registry import open_source
from loadstone.io.limits import Limits
from loadstone.io.sources import MemorySource
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule


def module(parameters: dict[str, object], children: dict[str, object] | None = None, **state: object) -> SavedModule:
    """A completed module with these parameters (a name means a tensor) and children."""
    made = SavedModule(
        "pkg.Net", state={"_parameters": parameters, "_buffers": {}, "_modules": children or {}, **state}
    )
    complete(made, Budget(Limits(), "test"))
    return made


def tensor(name: str) -> TensorInfo:
    return TensorInfo(name, "float32", (1,), (1,))


def saved(model: nn.Module, tmp_path: Path) -> SavedModule:
    path = tmp_path / "model.pt"
    torch.save(model, path)
    tree = open_checkpoint(path).tree
    assert isinstance(tree, SavedModule)
    return tree


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2))),
        nn.LSTM(3, 4, num_layers=2, bidirectional=True),
        nn.TransformerEncoderLayer(8, 2, 16),
        nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.PReLU()}),
        nn.ParameterList([torch.ones(2), torch.zeros(3)]),
        nn.ParameterDict({"y": nn.Parameter(torch.ones(2)), "x": nn.Parameter(torch.ones(1))}),
        nn.DataParallel(nn.Linear(2, 2)),
        nn.Linear(2, 2).half(),
        nn.Embedding(4, 3, padding_idx=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_saved_module_has_the_state_dict_of_the_live_one(model: nn.Module, tmp_path: Path) -> None:
    tree = saved(model, tmp_path)
    theirs = model.state_dict()
    assert list(tree.state_dict) == list(theirs)
    assert all(torch.equal(tree.state_dict[key].read(), theirs[key]) for key in theirs)
    assert list(tree.modules) == [name for name, _ in model.named_modules()]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # it is deprecated, and stands in many files
def test_old_weight_norm_has_the_two_factors_and_not_their_product(tmp_path: Path) -> None:
    tree = saved(nn.utils.weight_norm(nn.Linear(3, 2)), tmp_path)
    assert list(tree.state_dict) == ["bias", "weight_g", "weight_v"]


def test_tied_weights_share_one_storage(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["embed"].weight
    tree = saved(model, tmp_path)
    assert tree.state_dict["embed.weight"].storage is tree.state_dict["head.weight"].storage


def test_module_inside_another_object_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"epoch": 3, "model": nn.Linear(2, 2)}, path)
    tree = open_checkpoint(path).tree
    assert list(tree["model"].state_dict) == ["weight", "bias"]


def test_buffers_that_do_not_persist_are_kept_apart() -> None:
    made = module({"w": tensor("w")}, _non_persistent_buffers_set={"b"})
    made = SavedModule("pkg.Net", state={**made.state, "_buffers": {"b": tensor("b"), "c": tensor("c")}})
    complete(made, Budget(Limits(), "test"))
    assert (list(made.state_dict), list(made.non_persistent)) == (["w", "c"], ["b"])


def test_parameter_that_is_none_has_no_key() -> None:
    made = module({"weight": tensor("w"), "bias": None})
    assert list(made.state_dict) == ["weight"]
    assert made.skipped == {}


def test_child_that_is_no_module_is_listed_as_skipped() -> None:
    made = module({}, {"script": Opaque("torch.ScriptModule")})
    assert made.skipped == {"script": "torch.ScriptModule"}


def test_packed_parameters_are_listed_as_skipped() -> None:
    inner = module({}, None, _packed_params=Opaque("torch.ScriptObject"))
    assert module({}, {"fc": inner}).skipped == {"fc._packed_params": "torch.ScriptObject"}


def test_shared_children_cannot_multiply_without_limit() -> None:
    budget = Budget(Limits(nodes=100_000), "test")
    made = module({"w": tensor("w")})
    parents = []
    for _ in range(4):
        parents.append(SavedModule("pkg.Net", state={**made.state, "_modules": dict.fromkeys("0123456789", made)}))
        made = parents[-1]
    for parent in parents[:3]:
        complete(parent, budget)
    with pytest.raises(LimitError):
        complete(parents[3], budget)


def test_module_that_contains_itself_does_not_hang() -> None:
    data = io.BytesIO()
    model = nn.Sequential(nn.Linear(1, 1))
    model.owner = [model]
    torch.save(model, data)
    tree = open_source(MemorySource(data.getvalue(), "x"), Context(open_source)).tree
    assert list(tree.state_dict) == ["0.weight", "0.bias"]
    assert tree.state["owner"][0] is tree
