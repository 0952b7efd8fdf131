"""Every screen as a file in tests/golden, at 80 and at 100 columns.

To change them on purpose: LOADSTONE_UPDATE_GOLDEN=1 pytest tests/screens/test_golden.py, then read the diff.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from functools import partial

import pytest

import loadstone
from loadstone.cli.planning import plan_for
from loadstone.errors import LoadstoneError
from loadstone.matching.names import make_plan
from loadstone.matching.options import Options
from loadstone.screens.diagnostic import render_error
from loadstone.screens.explanation import render_codes, render_explanation
from loadstone.screens.inspection import render_inspection
from loadstone.screens.plan import render_plan
from loadstone.values import AnnotatedDict, Opaque, SavedModule

pytestmark = pytest.mark.parametrize("width", [80, 100])


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_gpt2(made, golden, width):
    tree = made.tensors(made.gpt2())
    checkpoint = made.checkpoint(
        tree, name="gpt2/model.safetensors", format="safetensors", nbytes=548_105_171, weights=(),
        metadata={"format": "pt"},
    )  # fmt: skip
    golden(f"inspect-gpt2-{width}", render_inspection(checkpoint, width=width))


def test_inspect_resnet(made, golden, width):
    state = AnnotatedDict(made.tensors(made.resnet18()), attributes={"_metadata": {}})
    state["bn1.num_batches_tracked"] = made.tensor((), "int64")
    checkpoint = made.checkpoint(
        {"epoch": 90, "arch": "resnet18", "state_dict": state}, name="model_best.pth.tar", nbytes=46_830_571
    )
    golden(f"inspect-resnet-{width}", render_inspection(checkpoint, width=width))


def test_inspect_training_checkpoint(made, golden, width):
    model = made.tensors(made.gpt2(prefix="transformer.", masks=False))
    model["lm_head.weight"] = replace(model["transformer.wte.weight"], key="lm_head.weight")
    moments = {
        number: {"step": made.tensor(()), "exp_avg": made.tensor(info.shape), "exp_avg_sq": made.tensor(info.shape)}
        for number, info in enumerate(model.values())
    }
    tree = {
        "model": AnnotatedDict(model, attributes={"_metadata": {}}),
        "ema": AnnotatedDict(made.tensors(made.gpt2(prefix="transformer.", masks=False)), attributes={"_metadata": {}}),
        "optimizer": {"state": moments, "param_groups": [{"lr": 6e-4, "betas": (0.9, 0.95), "params": [0, 1]}]},
        "epoch": 12,
        "loss": 0.31,
        "best_val_loss": 2.8871123790741,
        "config": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "bias": True, "vocab_size": 50257},
        "args": Opaque(
            "argparse.Namespace", state={"data": "/data/openwebtext", "compile": True, "note": "two\nlines"}
        ),
    }
    notes = (
        loadstone.Diagnostic(
            "unknown-global", "the pickle in `ckpt.pt` names 1 class that is not part of PyTorch",
            evidence=(("class", "argparse.Namespace"),),
        ),
    )  # fmt: skip
    checkpoint = made.checkpoint(tree, name="out/ckpt.pt", nbytes=1_990_123_456, diagnostics=notes)
    golden(f"inspect-training-{width}", render_inspection(checkpoint, width=width))


def test_inspect_whole_module(made, golden, width):
    state = made.tensors(made.resnet18(classes=10))
    modules = {"": "models.resnet.ResNet"}
    for key in state:
        path = key.rpartition(".")[0]
        kind = (
            "Linear" if path == "fc" else "BatchNorm2d" if ".bn" in f".{path}" or "downsample.1" in path else "Conv2d"
        )
        modules[path] = f"torch.nn.modules.{kind}"
        if path.startswith("layer"):
            modules[".".join(path.split(".")[:2])] = "models.resnet.BasicBlock"
    tree = SavedModule("models.resnet.ResNet", state_dict=state, modules=modules)
    checkpoint = made.checkpoint(tree, name="resnet18_full.pt", nbytes=44_800_000, format="torch-legacy")
    golden(f"inspect-module-{width}", render_inspection(checkpoint, width=width))


def test_inspect_dangerous_file(made, golden, width, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.dangerous_file(tmp_path / "evil.pt")
    with loadstone.open("evil.pt") as checkpoint:
        golden(f"inspect-dangerous-{width}", render_inspection(checkpoint, width=width))
    assert not (tmp_path / "must_not_appear").exists()


def test_inspect_hostile_names(made, golden, width):
    tree = {
        "\x1b[2J\x1b[31mready": made.tensor((2, 3)),
        "weight\nerror: none": made.tensor((2, 3)),
        "重み.\u202egnp.exe": made.tensor((4,)),
        "w" * 300 + ".weight": made.tensor((4, 4), "bfloat16"),
        "": made.tensor(()),
    }
    checkpoint = made.checkpoint(tree, name="\x1b]0;owned\x07.pt", metadata={"note": "a\nb\x1b[0m"})
    golden(f"inspect-hostile-{width}", render_inspection(checkpoint, width=width))


def test_inspect_more_rows_than_fit(made, golden, width):
    tree = made.tensors({f"p{number * 7919 % 100_003:x}q": (number + 1, 3) for number in range(900)})
    golden(f"inspect-many-{width}", render_inspection(made.checkpoint(tree, nbytes=500_000), width=width))


def test_inspect_no_weights(made, golden, width):
    checkpoint = made.checkpoint(
        {"mean": [0.485, 0.456, 0.406], "labels": {"cat": 0, "dog": 1}, "note": None}, nbytes=312
    )
    golden(f"inspect-no-weights-{width}", render_inspection(checkpoint, width=width))


# --- plan -------------------------------------------------------------------------------------------------------------


def planned(made, source, target, *, file="resnet18.pth", model="ResNet", others=None, **options):
    return make_plan(
        made.schema(model, target), made.tensors(source), Options(**options), source_name=file, target_name=model,
        not_for_model=made.tensors(others or {}),
    )  # fmt: skip


def test_plan_everything_matched(made, golden, width):
    moments = {f"optimizer.state.{n}.{name}": (64,) for n in range(75) for name in ("step", "exp_avg", "exp_avg_sq")}
    plan = planned(made, made.resnet18(prefix="module."), made.resnet18(), file="checkpoint.pth.tar", others=moments)
    assert plan.ok
    golden(f"plan-matched-{width}", render_plan(plan, width=width))


def test_plan_shapes_that_differ(made, golden, width):
    plan = planned(made, made.resnet18(), made.resnet18(classes=10))
    assert not plan.ok
    golden(f"plan-shapes-{width}", render_plan(plan, width=width))


def test_plan_near_names(made, golden, width):
    source = {key.replace("fc.", "classifier."): shape for key, shape in made.resnet18().items()}
    source |= {"aux.weight": (10, 512), "aux.bias": (10,)}
    target = made.resnet18() | {"neck.weight": (256, 512, 1, 1)}
    golden(f"plan-near-names-{width}", render_plan(planned(made, source, target), width=width))


def test_plan_another_architecture(made, golden, width):
    plan = planned(made, made.gpt2(masks=False), made.resnet18() | {"ln_f.weight": (768,)}, file="gpt2.safetensors")
    assert not plan.ok
    golden(f"plan-low-coverage-{width}", render_plan(plan, width=width))


def test_plan_decisions_made(made, golden, width):
    plan = planned(
        made, made.resnet18(classes=1000), made.resnet18(classes=10) | {"conv1.weight": (64, 2, 7, 7)},
        fresh=("fc",), adapt={"conv1.weight": "slice"}, drop=("bn1.running_mean",), strict=False,
    )  # fmt: skip
    assert plan.ok
    golden(f"plan-decided-{width}", render_plan(plan, width=width))


def test_plan_every_key(made, golden, width):
    plan = planned(made, {"module.a": (1,), "module.b": (2,)}, {"a": (1,), "b": (3,), "c": (1,)}, model="Tiny")
    golden(f"plan-all-{width}", render_plan(plan, width=width, all_rows=True))


def other_names(made):
    """The same network as another code base writes it: other words, other numbers, and no word for some layers."""
    names = {"conv1": "embedder.convolution", "bn1": "embedder.normalization", "fc": "classifier.1"}
    shortcut = {"downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"}
    renamed = {}
    for key, shape in made.resnet18().items():
        module, _, leaf = key.rpartition(".")
        stage = re.fullmatch(r"layer(\d)\.(\d)\.(.+)", module)
        if stage:
            block = f"encoder.stages.{int(stage[1]) - 1}.layers.{stage[2]}"
            part = shortcut.get(stage[3]) or re.sub(
                r"conv(\d)", lambda n: f"layer.{int(n[1]) - 1}.convolution", stage[3]
            )
            part = re.sub(r"bn(\d)", lambda n: f"layer.{int(n[1]) - 1}.normalization", part)
            module = f"{block}.{part}"
        else:
            module = names[module]
        renamed[f"{module}.{leaf}"] = shape
    return renamed


def test_plan_by_structure(made, golden, width):
    plan = planned(made, made.resnet18(), other_names(made), match="structure")
    assert plan.ok
    golden(f"plan-structure-{width}", render_plan(plan, width=width))


def test_plan_by_names_that_fits_by_structure(made, golden, width):
    plan = planned(made, made.resnet18(), other_names(made))
    golden(f"plan-fits-by-structure-{width}", render_plan(plan, width=width))


def test_plan_that_asks(made, golden, width):
    def twins(one, other):
        shapes = {"embed.weight": (100, 8), "head.weight": (100, 8)}
        for block in range(4):
            shapes |= {f"blocks.{block}.{name}.{leaf}": (8,) for name in (one, other) for leaf in ("weight", "bias")}
            shapes[f"blocks.{block}.mix.weight"] = (16, 8)
        return shapes

    plan = planned(made, twins("left", "right"), twins("foo", "bar"), match="structure", model="Twins")
    assert not plan.ok
    golden(f"plan-question-{width}", render_plan(plan, width=width))


def test_plan_by_structure_every_key(made, golden, width):
    source = {"a.0.weight": (4, 4), "a.1.weight": (8, 4), "q.weight": (6, 6), "k.weight": (6, 6), "v.weight": (6, 6)}
    target = {"b.first.weight": (4, 4), "b.second.weight": (8, 4), "qkv.weight": (18, 6)}
    plan = planned(made, source, target, match="structure", model="Tiny")
    golden(f"plan-structure-all-{width}", render_plan(plan, width=width, all_rows=True))


# --- errors and explanations ------------------------------------------------------------------------------------------


def test_errors(made, golden, width, tmp_path, monkeypatch):
    """What a person sees for each thing that can be wrong with a file or a target."""
    monkeypatch.chdir(tmp_path)
    files = {
        "page.pt": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
        "pointer.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 548105171\n",
        "empty.pt": b"",
        "noise.bin": bytes(range(7, 250)) * 3,
        "cut.safetensors": struct.pack("<Q", 500) + b'{"a":{"dtype":"F32","shape":[4],',
        "model.onnx": b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + b"\x00" * 64,
        "schema.json": b"[1, 2, 3]",
        "good.safetensors": (54).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}0000',
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    words = {"only": (), "drop": (), "fresh": (), "rename": (), "adapt": (), "answers": (), "no_strict": False}
    words |= {"weights": None, "dtype": None, "match": None, "recipe": None}
    good = "good.safetensors"
    attempts = {f"inspect {name}": partial(loadstone.open, name) for name in ["missing.pt", *files] if name != good}
    attempts[f"inspect {good} --weights ema"] = partial(loadstone.open, good, weights="ema")
    for target in ("nothing_here", "no_such_module:Net", "schema.json", "json:lodas"):
        attempts[f"plan {good} --into {target}"] = partial(plan_for, good, target, (), words)
    attempts[f"plan {good} --into {good} --dtype int7"] = partial(plan_for, good, good, (), words | {"dtype": "int7"})
    text = ""
    for command, attempt in attempts.items():
        with pytest.raises(LoadstoneError) as caught:
            attempt()
        screen = render_error(_moved_home(caught.value.diagnostics, tmp_path), width=width)
        text += f"$ loadstone {command}\n\n{screen}\n"
    golden(f"errors-{width}", text)


def _moved_home(diagnostics, place):
    """The same findings in a place whose name is as long on every machine: it decides where lines are broken."""
    return [
        replace(
            found,
            message=found.message.replace(str(place), "/home/me"),
            evidence=tuple((label, value.replace(str(place), "/home/me")) for label, value in found.evidence),
        )
        for found in diagnostics
    ]


def test_explanation(golden, width):
    golden(f"explain-{width}", render_explanation("shape-mismatch", width=width))


def test_codes_fit(width):
    assert all(len(text) <= width for text in render_codes(width=width).splitlines())
