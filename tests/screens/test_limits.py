"""A screen stays a screen, however much there is to show."""

from __future__ import annotations

import time

from loadstone.matching.plan import Action, Op, Plan
from loadstone.screens.inspection import MOST_ROWS, render_inspection
from loadstone.screens.plan import render_plan


def test_thirty_thousand_different_tensors_take_one_screen_and_little_time(made):
    checkpoint = made.checkpoint(made.tensors({f"p{n * 7919 % 100_003:x}q.w": (n % 97 + 1,) for n in range(30_000)}))
    start = time.process_time()
    text = render_inspection(checkpoint)
    assert time.process_time() - start < 5  # it takes a tenth of that; quadratic growth would take minutes
    assert len(text.splitlines()) < MOST_ROWS + 20
    assert "shown with --all" in text


def test_all_rows_are_all_rows(made):
    keys = {f"p{n * 7919 % 100_003:x}q": (n + 1,) for n in range(300)}
    text = render_inspection(made.checkpoint(made.tensors(keys)), all_rows=True)
    assert all(f"  {key} " in text for key in keys)


def test_a_plan_of_many_ways_stays_short(made):
    shapes = {f"p{n}": (n + 1,) for n in range(500)}
    actions = tuple(
        Action("load", key, key, f"reason {n}", ops=(Op("cast", f"float32 → form {n}"),))
        for n, key in enumerate(shapes)
    )
    plan = Plan("a.pt", "Net", actions, (), made.tensors(shapes), made.schema("Net", shapes))
    assert len(render_plan(plan).splitlines()) < 40
    assert len(render_plan(plan, all_rows=True).splitlines()) > 1000


def test_no_line_is_wider_than_the_screen(made):
    key = "x" * 300
    actions = (Action("dropped", key, None, "why"),)
    plan = Plan("a.pt", "Net", actions, (), made.tensors({key: (1,)}), made.schema("Net", {}))
    assert max(map(len, render_plan(plan, width=80).splitlines())) <= 80
