"""Version control with the real git: diffs of model files, the set-up of a repository, text manifests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loadstone.cli import main


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """An empty repository in a home of its own; we are in it."""
    home, folder = tmp_path / "home", tmp_path / "repository"
    home.mkdir()
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {"HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": home / ".config"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    git("init", "-q")
    git("config", "user.name", "someone")
    git("config", "user.email", "someone@example.org")
    return folder


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def commit() -> None:
    git("add", "-A")
    git("commit", "-qm", "a state")


def changed(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and not line.startswith(("+++", "---"))]


def save(scale: float, epoch: int, name: str = "net.pth") -> None:
    weights = {"conv.weight": torch.full((2, 3), 2.0), "fc.weight": torch.full((4,), scale)}
    torch.save({"epoch": epoch, "model_state_dict": weights}, name)


def test_git_diff_shows_the_changed_tensor_and_the_changed_value(repository):
    assert main(["git", "setup"]) == 0
    save(1.0, 1)
    commit()
    save(3.0, 2)
    before, after = changed(git("diff"))[0::2], changed(git("diff"))[1::2]
    assert (before[0], after[0]) == ("-epoch = 1", "+epoch = 2")
    assert before[1].startswith("-model_state_dict.fc.weight  float32  [4]  norm 2  min 1  max 1  digest ")
    assert after[1].startswith("+model_state_dict.fc.weight  float32  [4]  norm 6  min 3  max 3  digest ")
    assert len(before) == len(after) == 2


def test_a_new_key_is_an_added_line(repository):
    main(["git", "setup"])
    save_file({"a": torch.zeros(1)}, "net.safetensors")
    commit()
    save_file({"a": torch.zeros(1), "b": torch.ones(2, 2)}, "net.safetensors")
    assert [line for line in changed(git("diff")) if "#" not in line] == [
        "+b  float32  [2, 2]  norm 2  min 1  max 1  digest "
        + subprocess.run(
            [sys.executable, "-m", "loadstone", "manifest", "net.safetensors"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()[2].partition("xxh3-128:")[2][:12]
    ]  # fmt: skip


def test_an_unreadable_file_does_not_stop_the_diff(repository):
    main(["git", "setup"])
    save(1.0, 1)
    commit()
    Path("net.pth").write_bytes(b"<!DOCTYPE html><html>")
    Path("other.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 1500\n")
    git("add", "-A")
    shown = changed(git("diff", "--cached"))
    assert any("+# error[not-a-checkpoint]: `net.pth` is a web page" in line for line in shown)
    assert "+oid sha256:" + "a" * 64 in shown


def test_nothing_in_a_file_is_run(repository, dangerous_file):
    main(["git", "setup"])
    Path("evil.pt").write_bytes(dangerous_file.read_bytes())
    git("add", "-A")
    shown = git("diff", "--cached")
    assert "dangerous-global" in shown
    assert "must_not_appear" in shown
    assert not list(repository.glob("must_not_appear"))


def test_setting_up_twice_adds_nothing(repository, capsys):
    Path(".gitattributes").write_text("*.txt text")
    main(["git", "setup"])
    first = Path(".gitattributes").read_text(), Path(".git/config").read_text()
    assert first[0].startswith("*.txt text\n*.pth diff=loadstone\n")
    capsys.readouterr()
    assert main(["git", "setup"]) == 0
    assert "Everything is there already" in capsys.readouterr().out
    assert (Path(".gitattributes").read_text(), Path(".git/config").read_text()) == first


def test_a_dry_run_changes_nothing(repository, capsys):
    before = Path(".git/config").read_text()
    assert main(["git", "setup", "--dry-run"]) == 0
    assert "8 lines would be added; nothing was changed." in capsys.readouterr().out
    assert not Path(".gitattributes").exists()
    assert Path(".git/config").read_text() == before


def test_another_driver_is_named_before_it_loses(repository, capsys):
    Path(".gitattributes").write_text("*.pth filter=lfs diff=lfs merge=lfs -text\n")
    main(["git", "setup"])
    assert "instead of diff=lfs" in capsys.readouterr().out
    assert git("check-attr", "diff", "filter", "--", "a.pth").splitlines() == [
        "a.pth: diff: loadstone",
        "a.pth: filter: lfs",
    ]


def test_set_up_works_from_a_folder_inside(repository, monkeypatch):
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    assert main(["git", "setup"]) == 0
    assert (repository / ".gitattributes").exists()


def test_for_all_repositories_of_a_user(repository):
    assert main(["git", "setup", "--global"]) == 0
    assert git("check-attr", "diff", "a.safetensors") == "a.safetensors: diff: loadstone\n"
    assert "git textconv" in git("config", "--global", "diff.loadstone.textconv")
    assert not Path(".gitattributes").exists()


def test_outside_a_repository_it_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["git", "setup"]) == 2
    assert "error[not-a-repository]" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_textconv_gives_the_same_text_under_another_path(repository, capsys):
    save(1.0, 1)
    os.makedirs("deep/er")
    os.link("net.pth", "deep/er/other.pth")
    for path in ("net.pth", "deep/er/other.pth"):
        assert main(["git", "textconv", path]) == 0
    text = capsys.readouterr().out
    assert text[: len(text) // 2] == text[len(text) // 2 :]


def test_textconv_of_a_file_that_is_not_there_is_text(capsys):
    assert main(["git", "textconv", "gone.pth"]) == 0
    assert "gone.pth" in capsys.readouterr().out


def test_a_manifest_is_checked(repository, capsys):
    save(1.0, 1)
    assert main(["manifest", "net.pth", "-o", "net.pth.manifest"]) == 0
    assert main(["manifest", "--check", "net.pth"]) == 0
    save(2.0, 1)
    capsys.readouterr()
    assert main(["manifest", "--check", "net.pth", "net.pth.manifest", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [(each["key"], each["what"]) for each in document["differences"]] == [
        ("model_state_dict.fc.weight", "values")
    ]


def test_a_manifest_replaces_a_manifest_and_nothing_else(repository, capsys):
    save(1.0, 1)
    Path("out").write_text("precious")
    assert main(["manifest", "net.pth", "-o", "out"]) == 2
    assert "destination-exists" in capsys.readouterr().err
    assert Path("out").read_text() == "precious"
    assert main(["manifest", "net.pth", "-o", "out", "--force"]) == 0
    assert main(["manifest", "net.pth", "-o", "out"]) == 0


def test_git_merges_manifests_line_by_line(repository):
    tensors = {key: torch.zeros(2) for key in ("a", "b", "c", "d", "e", "f")}

    def write(**new: torch.Tensor) -> None:
        save_file(tensors | new, "net.safetensors")
        main(["manifest", "net.safetensors", "-o", "net.manifest"])
        Path("net.safetensors").unlink()
        commit()

    write()
    git("checkout", "-qb", "other")
    write(a=torch.ones(2))
    git("checkout", "-q", "-")
    write(f=torch.ones(2))
    git("merge", "-q", "other", "-m", "merged")
    save_file(tensors | {"a": torch.ones(2), "f": torch.ones(2)}, "net.safetensors")
    assert main(["manifest", "--check", "net.safetensors", "net.manifest"]) == 0
