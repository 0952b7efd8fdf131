"""Power cuts: every state that a crash can leave, and what loads from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.contenders import FOLK, OURS, Contender, content, same
from reliability.crashes import explore, survivals
from reliability.journal import Journal, Recorder, disagreements
from reliability.recording import record

_LEAST = 20_000
_OFTEN = (OURS[0], *OURS[2:4])  # a file that is replaced, folders with links, a run


@pytest.mark.long
@pytest.mark.parametrize("contender", [each for each in OURS if each not in _OFTEN], ids=lambda each: each.name)
def test_no_crash_loses_an_acknowledged_checkpoint_of_the_others(contender: Contender) -> None:
    outcome = explore(record(contender), contender)
    assert (outcome.lost, outcome.all_lost, outcome.wrong, outcome.unkept) == (0, 0, 0, 0), outcome.example


def test_no_crash_loses_an_acknowledged_checkpoint() -> None:
    outcomes = {contender.name: explore(record(contender), contender) for contender in _OFTEN}
    for name, outcome in outcomes.items():
        assert (outcome.lost, outcome.all_lost, outcome.wrong, outcome.unkept) == (0, 0, 0, 0), (name, outcome.example)
    assert sum(outcome.states for outcome in outcomes.values()) >= _LEAST


def test_the_enumerator_finds_what_the_common_recipe_loses(tmp_path: Path) -> None:
    """Written beside, flushed, renamed, the old one deleted, and the directory never flushed."""
    recipe = next(contender for contender in FOLK if "delete" in contender.name)
    journal = Journal.of(tmp_path)
    recorder = Recorder(journal)
    for step in (1, 2):
        partial, target = tmp_path / "tmp", tmp_path / f"epoch{step:04d}.pth"
        descriptor = recorder.create(partial)
        recipe.save(tmp_path.parent, step)
        recorder.write(descriptor, (tmp_path.parent / target.name).read_bytes())
        recorder.sync(descriptor)
        recorder.close(descriptor)
        recorder.rename(partial, target)
        if step > 1:
            recorder.remove(tmp_path / f"epoch{step - 1:04d}.pth")
        journal.acknowledge(step)
    assert disagreements(journal) == []
    assert explore(journal, recipe, ("journaled",)).lost
    assert explore(journal, recipe, ("strict",)).all_lost


def test_a_journal_that_missed_a_call_is_noticed(tmp_path: Path) -> None:
    journal = Journal.of(tmp_path)
    (tmp_path / "behind its back").touch()
    assert disagreements(journal) == ["behind its back"]


def test_unflushed_bytes_survive_as_nothing_half_or_all() -> None:
    before, after = b"o" * 1024, b"n" * 1024
    found = survivals(before, after)
    assert found[-1] == after
    assert {before, b"", bytes(1024), after[:512], after[:512] + bytes(512), after[:512] + before[512:]} <= {*found}
    assert survivals(after, after) == (after,)


@pytest.mark.parametrize("step", [1, 2])
def test_no_step_can_be_taken_for_another(step: int) -> None:
    assert same(content(step), content(step))
    assert not same(content(step), content(step + 1))
