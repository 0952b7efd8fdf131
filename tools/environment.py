"""Print the Python that a make target runs with, setting it up the first time.

    python tools/environment.py test|demo|bench|pairs

An environment is a venv in the user's cache, named by a hash of what is in it, so that every clone finds the same one.
The tools of a target are a small venv on top of another Python that has torch: the one at hand if its torch will do,
and it is never changed; else a venv with torch alone, which outlives every change of tools.

A venv counts only once its `complete` mark is written, which is the last thing done, under a lock: two clones may ask
at the same time, and one that was killed half way is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 6)


@dataclass(frozen=True)
class Layer:
    """What goes into one venv: requirement files, those whose dependencies are not wanted, and a word about time."""

    files: tuple[str, ...]
    alone: tuple[str, ...] = ()
    proof: str = ""  # modules that must import before the venv counts
    wait: str = "half a minute, the first time only"


TORCH = Layer(("torch.txt",), proof="torch, torchvision", wait="torch is large: some minutes, the first time only")
TARGETS = {
    "test": Layer(("package.txt", "test.txt"), proof="torch, pytest, hypothesis, mypy, safetensors"),
    "demo": Layer(("package.txt", "demo.txt"), alone=("demo-weights.txt",), proof="torchvision, skimage, rich"),
    "bench": Layer(("package.txt", "bench.txt"), proof="torch, safetensors, matplotlib"),
    "pairs": Layer(("pairs.txt",), alone=("pairs-alone.txt",), proof="torchvision, timm, transformers, weightbridge"),
}


def main(arguments: list[str]) -> int:
    """Write the path of the Python to stdout, all else to stderr."""
    if len(arguments) != 1 or arguments[0] not in TARGETS:
        sys.exit(f"usage: environment.py {'|'.join(TARGETS)}")
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"Loadstone needs Python 3.11 or later, {sys.executable} is older: try make PYTHON=python3.12")
    (target,) = arguments
    folders = package_folders(sys.path)
    if not has_torch():
        folders = package_folders_of(environment("torch", TORCH, above=()))
    print(environment(target, TARGETS[target], above=folders))
    return 0


def has_torch() -> bool:
    """The Python at hand has torchvision and a torch that will do."""
    try:
        importlib.metadata.version("torchvision")
        found = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return False
    return found is not None and tuple(map(int, found.groups())) >= OLDEST_TORCH


def environment(name: str, layer: Layer, *, above: tuple[Path, ...]) -> Path:
    """The Python of the venv with this layer on top of the package folders `above`; made where it is not there."""
    place = cache() / f"{name}-{fingerprint(layer, above)}"
    python = place / "bin" / "python"
    if not is_complete(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{place}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when this process and its children have ended, however
            if not is_complete(place):
                print(f"setting up {place} ({layer.wait})", file=sys.stderr, flush=True)
                build(place, python, layer, above, lock.fileno())
    return python


def is_complete(place: Path) -> bool:
    """The venv was made to its end, and the Python it was made from is still there."""
    return (place / "complete").exists() and (place / "bin" / "python").exists()


def build(place: Path, python: Path, layer: Layer, above: tuple[Path, ...], lock: int) -> None:
    """Make the venv; on failure say what pip said and leave it without its mark."""
    shutil.rmtree(place, ignore_errors=True)
    run([sys.executable, "-I", "-m", "venv", str(place)], lock)
    if above:
        (folder,) = package_folders_of(python)
        lines = [f"import site; site.addsitedir({str(each)!r})\n" for each in above]
        (folder / "below.pth").write_text("".join(lines))
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    if layer.files:
        run(pip + [word for file in layer.files for word in ("-r", str(REQUIREMENTS / file))], lock)
    for file in layer.alone:
        run([*pip, "--no-deps", "-r", str(REQUIREMENTS / file)], lock)
    run([str(python), "-I", "-c", f"import {layer.proof}"], lock)
    (place / "complete").touch()


def run(command: list[str], lock: int) -> None:
    """Run quietly, the lock held until the command ends; if it fails, show what it printed and stop."""
    done = subprocess.run(
        command, pass_fds=[lock],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\nthe environment could not be set up: {' '.join(command)}")


def fingerprint(layer: Layer, above: tuple[Path, ...]) -> str:
    """Changes with this Python, with what is asked for, and with what lies below."""
    digest = hashlib.sha256(f"{sys.version} {os.path.realpath(sys.executable)}".encode())
    for file in layer.files + layer.alone:
        digest.update((REQUIREMENTS / file).read_bytes())
    for folder in filter(Path.is_dir, above):
        installed = sorted(name for name in os.listdir(folder) if name.endswith(".dist-info"))
        digest.update(repr((str(folder), installed)).encode())
    return digest.hexdigest()[:16]


def package_folders(path: list[str]) -> tuple[Path, ...]:
    """The folders of a module search path that hold installed packages."""
    return tuple(Path(each) for each in path if each.endswith(("site-packages", "dist-packages")))


def package_folders_of(python: Path) -> tuple[Path, ...]:
    """The same for the Python of a venv, without starting it."""
    return tuple((python.parent.parent / "lib").glob("python3*/site-packages"))


def cache() -> Path:
    """Where environments are kept: $XDG_CACHE_HOME/loadstone or ~/.cache/loadstone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loadstone"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
