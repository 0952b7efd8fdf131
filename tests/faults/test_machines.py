"""What needs root or its own file system, on machines that have them."""

from __future__ import annotations

import shutil

import pytest
from reliability.contenders import OURS, Contender
from reliability.full_disk import NotRootError, fill
from reliability.power import SYSTEMS, cuts


@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_a_full_disk_leaves_the_old_checkpoint(contender: Contender) -> None:
    try:
        found = fill(contender, every=9)
    except NotRootError as error:
        pytest.skip(str(error))
    assert found.refused
    assert (found.lost, found.litter, found.untyped) == (0, 0, 0), found.example


@pytest.mark.long
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_power_cut_leaves_what_was_acknowledged(system: str) -> None:
    if shutil.which(SYSTEMS[system][0]) is None:
        pytest.skip(f"{SYSTEMS[system][0]} is not installed")
    try:
        found = list(cuts(OURS, system))
    except NotRootError as error:
        pytest.skip(str(error))
    assert len(found) > 30
    assert [cut for cut in found if cut.is_lost] == []
