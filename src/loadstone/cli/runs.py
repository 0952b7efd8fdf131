"""`loadstone list`, `prune` and `pin`: the checkpoints of a run, on a machine without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from loadstone.cli.commands import CLEAN, FINDINGS, Command, commands, json_option
from loadstone.cli.flags import with_flags
from loadstone.cli.output import Output

_metric = click.option("--metric", metavar="NAME", help="The metric that tells which one is best.")
_mode = click.option("--mode", type=click.Choice(("min", "max")), default="min", show_default=True,
                     help="Whether a small or a large metric is good.")  # fmt: skip


@commands.command(
    "list",
    cls=Command,
    short_help="List the checkpoints of a run.",
    examples=("loadstone list runs/resnet18", "loadstone list runs/resnet18 --metric val_acc --mode max --verify"),
)
@click.argument("folder", metavar="DIR", type=click.Path())
@_metric
@_mode
@click.option("--verify", "is_verifying", is_flag=True, help="Read all of them, and compare their digests.")
@json_option
@click.pass_obj
def list_(
    output: Output, /, folder: str, metric: str | None, mode: Literal["min", "max"], is_verifying: bool, is_json: bool
) -> int:
    """List the checkpoints in DIR in the order of training: epoch, step, metrics, size, and whether they are whole.

    Only headers are read, unless --verify is given.  Exit status 1 where one is damaged.
    """
    from loadstone.runs.facts import read_facts
    from loadstone.runs.listing import checkpoints, verified_now
    from loadstone.runs.seen import Verified
    from loadstone.screens.runs import listing_document, next_step, render_listing

    facts = read_facts(Path(folder))
    entries = checkpoints(folder, facts=facts)
    if is_verifying:
        with output.progress(f"reading {len(entries)} checkpoints"):
            entries = verified_now(entries, Verified())
    if is_json:
        output.document(listing_document(folder, entries, metric, mode, facts.diagnostics))
    else:
        said = with_flags(facts.diagnostics)
        output.answer(
            render_listing(folder, entries, said, metric=metric, mode=mode, width=output.width, color=output.color)
        )
        hint = next_step(folder, entries)
        if hint:
            output.hint(hint)
    return FINDINGS if facts.diagnostics or any(entry.state == "damaged" for entry in entries) else CLEAN


@commands.command(
    cls=Command,
    short_help="Show which checkpoints of a run can go; --yes removes them.",
    examples=(
        "loadstone prune runs/resnet18 --keep-last 3",
        "loadstone prune runs/resnet18 --keep-last 2 --keep-best 1 --metric val_acc --mode max --yes",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--keep-last", "last", metavar="N", type=int, default=3, show_default=True, help="The newest ones.")
@click.option("--keep-best", "best", metavar="N", type=int, default=0, help="Those with the best --metric.")
@_metric
@_mode
@click.option("--keep-every", "every", metavar="N", type=int, help="The end of every N-th epoch.")
@click.option("--yes", "is_sure", is_flag=True, help="Remove them; without it nothing is touched.")
@json_option
@click.pass_obj
def prune(
    output: Output, /, folder: str, last: int, best: int, metric: str | None, mode: Literal["min", "max"],
    every: int | None, is_sure: bool, is_json: bool,
) -> int:  # fmt: skip
    """Show what would go from DIR and why, and what stays and why.  With --yes, do it.

    Every checkpoint is read and compared with its digests first: only whole ones count.  The newest whole one, the
    best, the pinned and the one a run went on from always stay, and so does what no run wrote.
    """
    from loadstone.runs.facts import read_facts
    from loadstone.runs.keep import Keep, retain
    from loadstone.runs.listing import checkpoints, verified_now
    from loadstone.runs.prune import Pruned, freed_nbytes
    from loadstone.runs.prune import prune as carried_out
    from loadstone.runs.seen import Verified
    from loadstone.screens.runs import pruning_document, render_pruning

    keep = Keep(last, best, metric, mode, every)
    facts = read_facts(Path(folder))
    entries = checkpoints(folder, facts=facts)
    with output.progress(f"reading {len(entries)} checkpoints"):
        entries = verified_now(entries, Verified())
    decisions = retain(entries, keep)
    nbytes = freed_nbytes([decision.entry for decision in decisions if not decision.is_kept])
    done = carried_out(folder, decisions) if is_sure else Pruned(nbytes=nbytes, diagnostics=facts.diagnostics)
    if is_json:
        output.document(pruning_document(folder, decisions, done, is_done=is_sure))
    else:
        said = with_flags(done.diagnostics)
        output.answer(
            render_pruning(folder, decisions, done, said, is_done=is_sure, width=output.width, color=output.color)
        )
        if not is_sure and nbytes and not facts.diagnostics:
            output.hint("nothing was removed; add --yes to do it")
    return FINDINGS if done.diagnostics else CLEAN


@commands.command(
    cls=Command,
    short_help="Keep a checkpoint whatever retention says.",
    examples=("loadstone pin runs/resnet18/resnet18_epoch0050.pth",),
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--remove", "is_removed", is_flag=True, help="Leave it to retention again.")
@json_option
@click.pass_obj
def pin(output: Output, /, file: str, is_removed: bool, is_json: bool) -> int:
    """Keep FILE, a checkpoint of a run, whatever retention says; noted in run.json beside it."""
    from loadstone.runs import facts

    now = facts.unpin(file) if is_removed else facts.pin(file)
    if is_json:
        output.document({"path": file, "pinned": list(now.pinned)})
    else:
        from loadstone.screens.runs import render_pins

        output.answer(render_pins(file, now.pinned, is_pinned=not is_removed, color=output.color))
    return CLEAN
