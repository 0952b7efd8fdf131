"""What `loadstone git setup` adds to a repository, found out first and then written: a diff driver, and who uses it.

Git calls a driver's `textconv` with the path of a file, and compares what it prints.  With `cachetextconv` it keeps the
text by the file's hash.  See gitattributes(5), "Performing text diffs of binary files".
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from loadstone.errors import Diagnostic, Fix, IntegrityError
from loadstone.io.disk import disk
from loadstone.io.replace import replacing

DRIVER = "loadstone"
PATTERNS = ("*.pth", "*.pt", "*.ckpt", "*.safetensors", "*.pth.tar", "pytorch_model*.bin")
_SECONDS = 20  # for git to answer


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a file that should be there: a pattern of .gitattributes (`is_attribute`), or of the configuration.

    `found` is what is there already: the same value, another one, or None.
    """

    file: str
    name: str
    value: str
    found: str | None
    is_attribute: bool = False

    @property
    def is_there(self) -> bool:
        """Nothing has to be done."""
        return self.found == self.value


@dataclass(frozen=True, slots=True)
class Setup:
    """What a repository, or with `folder` None the user's git, needs and has."""

    folder: Path | None
    attributes: Path
    settings: tuple[Setting, ...]

    @property
    def missing(self) -> tuple[Setting, ...]:
        """What would be added or changed."""
        return tuple(setting for setting in self.settings if not setting.is_there)

    def to_json(self) -> dict[str, object]:
        """Plain values, ready for json.dumps."""
        return {
            "folder": None if self.folder is None else os.fspath(self.folder),
            "settings": [
                {
                    "file": each.file,
                    "name": each.name,
                    "value": each.value,
                    "found": each.found,
                    "is_there": each.is_there,
                }
                for each in self.settings
            ],
        }


def planned_setup(*, is_global: bool) -> Setup:
    """What is there and what is missing.  Raises IntegrityError (not-a-repository) outside a repository."""
    folder = None if is_global else _repository()
    attributes = _global_attributes() if folder is None else folder / ".gitattributes"
    shown = "~/.gitconfig" if folder is None else ".git/config"
    config = {f"diff.{DRIVER}.textconv": textconv_command(), f"diff.{DRIVER}.cachetextconv": "true"}
    settings = [
        Setting(shown, name, value, _git(*_scope(folder), "--get", name, folder=folder))
        for name, value in config.items()
    ]
    lines = _lines_of(attributes)
    for pattern in PATTERNS:
        wanted = f"diff={DRIVER}"
        found = next((words for words in reversed(lines) if words[0] == pattern and _diff_of(words)), None)
        settings.append(Setting(attributes.name, pattern, wanted, None if found is None else _diff_of(found), True))
    return Setup(folder, attributes, tuple(settings))


def apply(setup: Setup) -> None:
    """Write what is missing; the attributes in one step, behind what is there.  Raises SaveError, IntegrityError."""
    attributes = [each for each in setup.missing if each.is_attribute]
    if attributes:
        before = setup.attributes.read_bytes() if setup.attributes.exists() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        for folder in reversed([each for each in setup.attributes.parents if not each.exists()]):
            disk().make_folder(folder)
        with replacing(setup.attributes) as file:
            file.write(before + "".join(f"{each.name} {each.value}\n" for each in attributes).encode())
    for each in setup.missing:
        if not each.is_attribute and _git(*_scope(setup.folder), each.name, each.value, folder=setup.folder) is None:
            raise IntegrityError(Diagnostic("io-error", f"git did not take `{each.name} = {each.value}`"))


def textconv_command() -> str:
    """The command that git runs; with its place where it is in an environment that may not be active then."""
    script = Path(sys.executable).with_name("loadstone")
    if sys.prefix == sys.base_prefix and shutil.which("loadstone"):
        return "loadstone git textconv"
    if script.exists():
        return f"{shlex.quote(os.fspath(script))} git textconv"
    return f"{shlex.quote(sys.executable)} -m loadstone git textconv"


def _repository() -> Path:
    top = _git("rev-parse", "--show-toplevel", folder=Path.cwd())
    if not top:
        raise IntegrityError(
            Diagnostic(
                "not-a-repository",
                f"`{Path.cwd()}` is in no git repository with a work tree",
                fixes=(Fix("set it up for all repositories of this user", "loadstone git setup --global"),),
            )
        )
    return Path(top)


def _global_attributes() -> Path:
    """Where git looks for attributes of all repositories: gitattributes(5)."""
    named = _git("config", "--global", "--type=path", "--get", "core.attributesFile", folder=None)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(named) if named else Path(home) / "git" / "attributes"


def _scope(folder: Path | None) -> tuple[str, ...]:
    return ("config", "--global") if folder is None else ("config", "--local")


def _lines_of(attributes: Path) -> list[list[str]]:
    try:
        text = attributes.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [words for line in text.splitlines() if (words := line.split()) and not line.startswith("#")]


def _diff_of(words: list[str]) -> str | None:
    """What a line says about diffs; the last word counts."""
    return next((word for word in reversed(words[1:]) if word.lstrip("-!") == "diff" or word.startswith("diff=")), None)


def _git(*words: str, folder: Path | None) -> str | None:
    """What git prints, or None where it says no."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IntegrityError(Diagnostic("io-error", f"git cannot be run: {error}")) from error
    return done.stdout.removesuffix("\n") if done.returncode == 0 else None
