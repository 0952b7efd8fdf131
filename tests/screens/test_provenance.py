"""What a file says about itself is shown, whatever it says, and never more than fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.manifest import Fingerprint, Manifest
from loadstone.screens.lines import draw
from loadstone.screens.provenance import provenance_lines
from loadstone.screens.text import cells

MARK = Fingerprint("float32", (3,), "xxh3-128:" + "0" * 32)
FULL = Manifest(
    {"conv1.weight": MARK, "fc.weight": MARK},
    model={
        "class": "torchvision.models.resnet.ResNet",
        "modules": {"": "ResNet", "fc": "Linear"},
        "parameters": 11_689_512,
        "trainable": 5_130,
        "buffers": 9_600,
    },
    training={"epoch": 50, "step": 23_450, "metrics": {"loss": 0.25, "val_acc": 0.9125, "best": float("nan")}},
    written={
        "time": "2026-11-23T01:10:00+00:00",
        "loadstone": "0.1.0",
        "torch": "2.14.1",
        "git": {"commit": "5644a3dcafe0123456789", "is_dirty": True},
    },
    parent={"name": "resnet18_epoch0049.pth", "digest": MARK.digest},
    probe={"version": 1},
)
SCREEN = """\
  written    2026-11-23 01:10 UTC   loadstone 0.1.0   torch 2.14.1   git 5644a3dca and changes
  model      torchvision.models.resnet.ResNet   2 modules   11.7 M parameters   5.1 k of them trained
  training   epoch 50   step 23,450   loss 0.25   val_acc 0.9125   best nan
  comes from resnet18_epoch0049.pth
  proof      digests of 2 tensors   an output to compare with: `plan.check()`"""


def test_everything_that_is_known_is_shown():
    assert draw(provenance_lines(FULL, 110), color=False).rstrip("\n") == SCREEN


@pytest.mark.parametrize("width", [80, 100])
def test_it_fits(width):
    assert all(cells(text) <= width for text in draw(provenance_lines(FULL, width), color=False).splitlines())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["time", "loadstone", "torch", "git", "class", "modules", "parameters", "trainable", "epoch",
                         "step", "metrics", "name"])  # fmt: skip
part = st.dictionaries(names, anything, max_size=6)


@given(part, part, part, part)
def test_a_manifest_may_claim_anything(model, training, written, parent):
    manifest = Manifest({}, model=model, training=training, written=written, parent=parent)
    text = draw(provenance_lines(manifest, 80), color=False)
    assert "\x1b" not in text
