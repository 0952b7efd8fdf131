"""Residual networks, plain and inverted: their parts, and how engineers name them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.pairs.styles.parts import Form, Part, Row, at, row, within

CLASSIFIERS = ("fc", "head.fc", "classifier", "classifier.1", "output", "head", "linear", "last_linear")

# residual ------------------------------------------------------------------------------------------------------------

STEMS = (  # convolution and norm
    ("conv1", "bn1"), ("stem.conv", "stem.bn"), ("stem.0", "stem.1"), ("conv_stem", "bn_stem"),
    ("features.init_block.conv.conv", "features.init_block.conv.bn"), ("features.0", "features.1"),
    ("embedder.embedder.convolution", "embedder.embedder.normalization"), ("input_stem.0.conv", "input_stem.0.norm"),
)  # fmt: skip
BLOCKS = (
    "layer{s:+1}.{b}", "layer{s:+1}.{b}", "stages.{s}.{b}", "stages.{s}.blocks.{b}", "encoder.stages.{s}.layers.{b}",
    "features.stage{s:+1}.unit{b:+1}", "blocks.{n}", "features.{n:+4}", "group{s:+1}.block{b:+1}", "res{s:+2}.{b}",
    "stage_{s:+1}.block_{b}", "body.{n}", "conv{s:+2}_x.{b}", "layers.{s}.{b}",
)  # fmt: skip
INSIDE = (  # convolution i of a block and the norm behind it
    ("conv{i:+1}", "bn{i:+1}"), ("conv{i:+1}", "bn{i:+1}"), ("conv{i:+1}.conv", "conv{i:+1}.bn"),
    ("body.conv{i:+1}.conv", "body.conv{i:+1}.bn"), ("layer.{i}.convolution", "layer.{i}.normalization"),
    ("conv.{i:*3}", "conv.{i:*3+1}"), ("residual.{i:*3}", "residual.{i:*3+1}"), ("convs.{i}", "norms.{i}"),
    ("branch2{i:a}.conv", "branch2{i:a}.bn"), ("conv{i:+1}", "norm{i:+1}"), ("block.{i}.0", "block.{i}.1"),
    ("conv_{i:+1}", "bn_{i:+1}"), ("main_path.{i:*3}", "main_path.{i:*3+1}"), ("f.{i}.conv", "f.{i}.norm"),
)  # fmt: skip
BEFORE = (  # the norm before convolution i
    ("conv{i:+1}", "bn{i:+1}"), ("conv{i:+1}", "norm{i:+1}"), ("body.conv{i:+1}.conv", "body.conv{i:+1}.bn"),
    ("residual.{i:*3+2}", "residual.{i:*3}"), ("convs.{i}", "norms.{i}"), ("layers.{i}.conv", "layers.{i}.norm"),
)  # fmt: skip
SHORTCUTS = (
    ("downsample.0", "downsample.1"), ("downsample.0", "downsample.1"), ("shortcut.0", "shortcut.1"),
    ("shortcut.convolution", "shortcut.normalization"), ("identity_conv.conv", "identity_conv.bn"), ("proj", "proj_bn"),
    ("downsample.conv", "downsample.norm"), ("skip.conv", "skip.bn"), ("branch1.conv", "branch1.bn"),
    ("conv_skip", "bn_skip"), ("residual_conv", "residual_norm"), ("shortcut_conv", "shortcut_bn"),
)  # fmt: skip
EXCITES = (
    ("se.fc1", "se.fc2"), ("se.conv_reduce", "se.conv_expand"), ("se.fc.0", "se.fc.2"), ("attention.1", "attention.3"),
    ("se_module.fc1", "se_module.fc2"), ("squeeze_excite.reduce", "squeeze_excite.expand"), ("se.down", "se.up"),
)  # fmt: skip
LAST_NORMS = ("bn", "norm", "features.post_activ.bn", "final_bn", "head_norm", "bn_last")


def residual(dice: Random) -> list[Part]:
    """Stages of basic blocks or bottlenecks, norm behind or before each convolution, with or without shortcuts."""
    is_deep, is_before = dice.random() < 0.5, dice.random() < 0.2
    has_excite = dice.random() < 0.3
    width, depths = dice.choice((8, 16)), [dice.choice((1, 2, 2, 3)) for _ in range(dice.choice((2, 3, 4)))]
    grows = dice.random() < 0.8
    norm: Form = dice.choice(("batch", "batch", "batch", "norm"))
    has_bias = dice.random() < 0.25
    expansion = 4 if is_deep else 1
    kernel = dice.choice((3, 7))
    parts = [Part("stem", (width, 3, kernel, kernel), has_bias=has_bias)]
    if not is_before:
        parts.append(Part("stem_norm", (width,), kind=norm))
    inputs, n = width, 0
    for s, depth in enumerate(depths):
        inner = width * (2**s if grows else 1)
        outputs = inner * expansion
        for b in range(depth):
            here = {"s": s, "b": b, "n": n}
            kernels = ((inner, inputs, 1), (inner, inner, 3), (outputs, inner, 1)) if is_deep else ()
            for i, (rows, columns, size) in enumerate(kernels or ((inner, inputs, 3), (outputs, inner, 3))):
                parts.append(Part("conv", (rows, columns, size, size), at(**here, i=i), has_bias=has_bias))
                parts.append(Part("norm", (columns if is_before else rows,), at(**here, i=i), norm))
            if has_excite:
                parts.append(Part("reduce", (max(outputs // 8, 2), outputs, 1, 1), at(**here)))
                parts.append(Part("expand", (outputs, max(outputs // 8, 2), 1, 1), at(**here)))
            if b == 0 and (inputs != outputs or s):
                parts.append(Part("shortcut", (outputs, inputs, 1, 1), at(**here), has_bias=has_bias))
                if not is_before:
                    parts.append(Part("shortcut_norm", (outputs,), at(**here), norm))
            inputs, n = outputs, n + 1
    if is_before:
        parts.append(Part("last_norm", (inputs,), kind=norm))
    return [*parts, Part("head", (10, inputs))]


def residual_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    is_before = any(part.role == "last_norm" for part in parts)
    block = dice.choice(BLOCKS)
    stem, stem_norm = dice.choice(STEMS)
    conv, norm = dice.choice(BEFORE if is_before else INSIDE)
    shortcut, shortcut_norm = dice.choice(SHORTCUTS)
    reduce, expand = dice.choice(EXCITES)
    is_flat = dice.random() < 0.3
    return [
        row(stem, "stem"),
        row(stem_norm, "stem_norm".replace(" ", "_")),
        *within(block, (conv, "conv"), (norm, "norm"), (shortcut, "shortcut"), (shortcut_norm, "shortcut_norm")),
        row(f"{block}.{reduce}", "reduce", is_flat=is_flat),
        row(f"{block}.{expand}", "expand", is_flat=is_flat),
        row(dice.choice(LAST_NORMS), "last_norm"),
        row(dice.choice(CLASSIFIERS), "head"),
    ]


# inverted residual ---------------------------------------------------------------------------------------------------

# Containers, with the names of convolution, norm and squeeze-excite in a block; j counts the convolutions that are
# there, k as well the squeeze-excite between the last two.
INVERTED = (
    ("features.{n:+1}.conv", "{j}.0", "{j}.1", "se.fc.0", "se.fc.2"),
    ("features.{s:+1}.{b}.block", "{k}.0", "{k}.1", "{se}.fc1", "{se}.fc2"),
    ("blocks.{s}.{b}", "conv{j:+1}", "bn{j:+1}", "se.conv_reduce", "se.conv_expand"),
    ("layers.{n}", "conv.{j:*3}", "conv.{j:*3+1}", "se.0", "se.2"),
    ("features.stage{s:+1}.unit{b:+1}", "conv{j:+1}.conv", "conv{j:+1}.bn", "se.conv1", "se.conv2"),
)
INVERTED_WORDS = (  # expand, depthwise and project, each with its norm; reduce and expand of squeeze-excite
    ("features.{n:+1}", "conv.{j}.0", "conv.{j}.1", "conv.{j}.0", "conv.{j}.1", "conv.{j}", "conv.{j:+1}",
     "se.fc1", "se.fc2"),
    ("_blocks.{n}", "_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2",
     "_se_reduce", "_se_expand"),
    ("blocks.{s}.{b}", "expand.conv", "expand.bn", "dw.conv", "dw.bn", "project.conv", "project.bn",
     "se.reduce", "se.expand"),
    ("layers.{n}", "pw1", "norm1", "dw", "norm2", "pw2", "norm3", "se.fc1", "se.fc2"),
    ("encoder.blocks.{n}", "expansion.expand_conv", "expansion.expand_bn", "depthwise_conv.depthwise_conv",
     "depthwise_conv.depthwise_norm", "projection.project_conv", "projection.project_bn",
     "squeeze_excite.reduce", "squeeze_excite.expand"),
    ("stages.{s}.blocks.{b}", "inverted_bottleneck.conv", "inverted_bottleneck.bn", "depth_conv.conv", "depth_conv.bn",
     "point_linear.conv", "point_linear.bn", "depth_conv.se.fc.reduce", "depth_conv.se.fc.expand"),
)  # fmt: skip
INVERTED_TAILS = (
    ("features.18.0", "features.18.1"), ("conv_head", "bn2"), ("_conv_head", "_bn1"), ("head.conv", "head.bn"),
    ("last_conv.conv", "last_conv.norm"), ("features.final_block.conv", "features.final_block.bn"),
)  # fmt: skip
INVERTED_STEMS = (("features.0.0", "features.0.1"), ("_conv_stem", "_bn0"), *STEMS)


def inverted(dice: Random) -> list[Part]:
    """Inverted residuals: expand, depthwise, project, with or without squeeze-excite; the first expands nothing."""
    width, factor = dice.choice((8, 16)), dice.choice((2, 4, 6))
    depths = [1, *(dice.choice((1, 2, 3)) for _ in range(dice.choice((2, 3))))]
    has_excite, kernels = dice.random() < 0.5, dice.choice(((3,), (3, 5)))
    parts = [Part("stem", (width, 3, 3, 3), has_bias=False), Part("stem_norm", (width,), kind="batch")]
    inputs, n = width, 0
    for s, depth in enumerate(depths):
        outputs = width + 8 * s
        kernel = dice.choice(kernels)
        for b in range(depth):
            inner = inputs * (factor if s else 1)
            shapes = [(role, shape) for role, shape in (
                ("expand", (inner, inputs, 1, 1)), ("depthwise", (inner, 1, kernel, kernel)),
                ("project", (outputs, inner, 1, 1)),
            ) if s or role != "expand"]  # fmt: skip
            for j, (role, shape) in enumerate(shapes):
                k = j + (has_excite and role == "project")
                here = at(s=s, b=b, n=n, j=j, k=k)
                parts.append(Part(role, shape, here, has_bias=False))
                parts.append(Part(f"{role}_norm", shape[:1], here, "batch"))
            if has_excite:
                here, squeezed = at(s=s, b=b, n=n, se=len(shapes) - 1), max(inputs // 4, 2)
                parts.append(Part("se_reduce", (squeezed, inner, 1, 1), here))
                parts.append(Part("se_expand", (inner, squeezed, 1, 1), here))
            inputs, n = outputs, n + 1
    parts.append(Part("tail", (4 * inputs, inputs, 1, 1), has_bias=False))
    return [*parts, Part("tail_norm", (4 * inputs,), kind="batch"), Part("head", (10, 4 * inputs))]


def inverted_rows(dice: Random, parts: Sequence[Part]) -> list[Row]:
    if dice.random() < 0.5:
        block, conv, norm, reduce, expand = dice.choice(INVERTED)
        names = [conv, norm] * 3
    else:
        block, *words = dice.choice(INVERTED_WORDS)
        names, (reduce, expand) = words[:6], words[6:]
    roles = ("expand", "expand_norm", "depthwise", "depthwise_norm", "project", "project_norm")
    stem, stem_norm = dice.choice(INVERTED_STEMS)
    tail, tail_norm = dice.choice(INVERTED_TAILS)
    is_flat = dice.random() < 0.3
    return [
        *within("", (stem, "stem"), (stem_norm, "stem_norm")),
        *within(block, *zip(names, roles, strict=True)),
        row(f"{block}.{reduce}", "se_reduce", is_flat=is_flat),
        row(f"{block}.{expand}", "se_expand", is_flat=is_flat),
        *within("", (tail, "tail"), (tail_norm, "tail_norm"), (dice.choice(CLASSIFIERS), "head")),
    ]
