"""Errors of the operating system at every call, and kills."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest
from reliability.contenders import OURS, Contender, step_of
from reliability.faults import ERRORS, faults
from reliability.killing import at_disk_calls, at_system_calls

from loadstone.errors import SaveError

_FILE, _, _FOLDER, _RUN, _ = OURS
_RETAINING = [each for each in OURS if each.held]


@pytest.mark.parametrize("contender", [each for each in OURS if not each.held], ids=lambda each: each.name)
def test_every_error_at_every_call_leaves_the_old_file(contender: Contender) -> None:
    tried = list(faults(contender))
    assert [fault for fault in tried if fault.broken] == []
    assert len({fault.number for fault in tried}) * len(ERRORS) <= len(tried)
    assert any(fault.was_raised for fault in tried)


@pytest.mark.parametrize("contender", _RETAINING, ids=lambda each: each.name)
def test_an_error_at_every_call_leaves_the_checkpoints(contender: Contender) -> None:
    assert [fault for fault in faults(contender, ["EIO"]) if fault.broken] == []


@pytest.mark.long
@pytest.mark.parametrize("contender", _RETAINING, ids=lambda each: each.name)
def test_every_error_at_every_call_leaves_the_checkpoints(contender: Contender) -> None:
    assert [fault for fault in faults(contender) if fault.broken] == []


@pytest.mark.parametrize(
    ("contender", "every"), [(_FILE, 1), (_FOLDER, 4), (_RUN, 1)], ids=lambda each: getattr(each, "name", str(each))
)
def test_a_kill_at_any_call_loses_nothing(contender: Contender, every: int) -> None:
    tried = list(at_disk_calls(contender, every=every))
    assert len(tried) > 8, "the disk was not in use"
    assert [kill for kill in tried if kill.broken] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_at_system_calls_loses_nothing() -> None:
    assert [kill for kill in at_system_calls(_FILE, every=6) if kill.broken] == []


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_a_kill_at_every_system_call_loses_nothing(contender: Contender) -> None:
    assert [kill for kill in at_system_calls(contender) if kill.broken] == []


@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_a_limit_on_file_size_is_an_error_of_ours(contender: Contender, tmp_path: Path) -> None:
    contender.save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SaveError):
            contender.save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert step_of(contender.load(tmp_path)) == 1
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]
