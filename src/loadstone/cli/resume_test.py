"""`loadstone resume-test`: from the words of the command line to a verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from loadstone.cli.commands import CLEAN, COULD_NOT, FINDINGS, Command, commands, json_option
from loadstone.cli.output import Output

if TYPE_CHECKING:
    from loadstone.training.resume_test import ResumeTest

_STATUS = {"pass": CLEAN, "differs": FINDINGS, "not-resumed": FINDINGS, "script-failed": COULD_NOT}


@commands.command(
    "resume-test",
    cls=Command,
    short_help="Prove that a training script resumes exactly.",
    examples=("loadstone resume-test train.py --epochs 3", "loadstone resume-test --kills 10 --seed 1 train.py"),
    context_settings={"allow_interspersed_args": False},  # what stands behind SCRIPT is the script's
)
@click.argument("script", metavar="SCRIPT", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--kills", metavar="N", type=click.IntRange(1, 1000), default=3, show_default=True,
              help="How many times the script is killed.")  # fmt: skip
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Which batches it is killed at.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), default=3600,
              show_default=True, help="For one process of the script.")  # fmt: skip
@json_option
@click.pass_obj
def resume_test(
    output: Output, /, script: str, arguments: tuple[str, ...], kills: int, seed: int, timeout: float, is_json: bool
) -> int:
    """Prove that a training script resumes exactly: run it in one go, run it killed and started again, compare.

    The script is run as it is, with its ARGUMENTS, in this directory. The checkpoints of its runs go into a scratch
    folder; what it writes by itself, it writes. Every batch, the learning rates, the weights and the optimizer's
    state are compared, by digest.

    Exit status 0 where all is the same to the bit, 1 where something differs or nothing was resumed, 2 where the
    script fails.
    """
    from loadstone.training.resume_test import resume_test as test

    found = test(script, arguments, kills=kills, seed=seed, timeout=timeout, progress=output.progress)
    if is_json:
        output.document(document(found))
    else:
        from loadstone.screens.resume_test import render_resume_test

        output.answer(render_resume_test(found, width=output.width, color=output.color))
    return _STATUS[found.verdict]


def document(found: ResumeTest) -> dict[str, object]:
    """The outcome as plain values."""
    difference = found.difference
    return {
        "script": list(found.script),
        "verdict": found.verdict,
        "epochs": found.epochs,
        "steps": found.steps,
        "kills": [asdict(kill) for kill in found.kills],
        "batches_compared": found.compared,
        "values_compared": found.values,
        "difference": difference and {
            "what": difference.what,
            "epoch": difference.epoch,
            "batch": difference.batch,
            "step": difference.step,
            "kills_before": difference.life,
            "diagnostic": difference.diagnostic.to_json(),
        },
        "failure": found.failure and {
            "how": found.failure.how,
            "kills_before": found.failure.life,
            "output": list(found.failure.output),
        },
    }  # fmt: skip
