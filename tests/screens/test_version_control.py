"""What `git setup` and `manifest --check` show, at 80 and 100 columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadstone.checks.manifest_text import Comparison, Difference
from loadstone.cli.git_setup import PATTERNS, Setting, Setup
from loadstone.manifest import Fingerprint
from loadstone.screens.version_control import render_comparison, render_setup

ZERO, ONE = ("xxh3-128:" + digit * 32 for digit in "01")


def setup() -> Setup:
    command = "/home/someone/projects/images/.venv/bin/loadstone git textconv"
    there = {"*.pth": "diff=lfs", "*.pt": "diff=loadstone"}
    settings = [
        Setting(".git/config", "diff.loadstone.textconv", command, None),
        Setting(".git/config", "diff.loadstone.cachetextconv", "true", "true"),
        *(Setting(".gitattributes", pattern, "diff=loadstone", there.get(pattern), True) for pattern in PATTERNS),
    ]
    return Setup(Path("/home/someone/projects/images"), Path(".gitattributes"), tuple(settings))


def comparison() -> Comparison:
    deep = "model_state_dict.backbone.encoder.layers.11.self_attention.output_projection.dense.weight"
    return Comparison(
        "runs/resnet18_epoch0050.pth",
        "resnet18.manifest",
        120,
        (
            Difference("fc.bias", Fingerprint("float32", (1000,), ZERO), None),
            Difference("fc.weight", Fingerprint("float32", (1000, 512), ZERO), Fingerprint("float32", (10, 512), ONE)),
            Difference("head.weight", None, Fingerprint("float32", (10, 512), ONE)),
            Difference(deep, Fingerprint("float32", (512, 512), ZERO), Fingerprint("float32", (512, 512), ONE)),
        ),
        ("embedding.sparse",),
    )


@pytest.mark.parametrize("width", [80, 100])
def test_setup(golden, width):
    golden(f"git-setup-{width}", render_setup(setup(), is_dry_run=True, width=width))


@pytest.mark.parametrize("width", [80, 100])
def test_comparison(golden, width):
    golden(f"manifest-check-{width}", render_comparison(comparison(), width=width))


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_the_terminal(width):
    shown = render_setup(setup(), is_dry_run=True, width=width) + render_comparison(comparison(), width=width)
    assert max(map(len, shown.splitlines())) <= width


def test_a_manifest_that_holds_says_so_in_a_line():
    assert "✓  3 tensors as the manifest says" in render_comparison(Comparison("a", "b", 3, ()))
