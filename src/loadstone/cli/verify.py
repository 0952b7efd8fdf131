"""`loadstone verify`: are the bytes of these checkpoints those that were written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from loadstone.cli.commands import CLEAN, COULD_NOT, FINDINGS, Command, commands, json_option
from loadstone.cli.flags import with_flags
from loadstone.cli.output import Output, error_document
from loadstone.errors import LoadstoneError


@commands.command(
    cls=Command,
    short_help="Prove that files are what was written.",
    examples=(
        "loadstone verify resnet18_epoch0050.pth",
        "loadstone verify runs/resnet18",
        "loadstone verify resnet18.pth --probe --into torchvision.models:resnet18",
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--probe", is_flag=True, help="Also run the model of --into on the input that the file describes.")
@click.option("--into", "target", metavar="TARGET", help="module:factory, for --probe.")
@click.option("--set", "keywords", metavar="NAME=VALUE", multiple=True, help="A keyword argument for the factory.")
@click.option("--weights", metavar="NAME", help="Which set of weights, for --probe.")
@json_option
@click.pass_obj
def verify(
    output: Output, /, paths: tuple[str, ...], probe: bool, target: str | None, keywords: tuple[str, ...],
    weights: str | None, is_json: bool,
) -> int:  # fmt: skip
    """Read files to their last byte, and compare them with the digests or checksums they carry.

    PATH is a checkpoint, or the directory of a run, all of whose checkpoints are read.  PyTorch is not needed.
    Exit status 0 where nothing is damaged, 1 where something is.  A file without digests is said to prove nothing.

    With --probe, a model is built, filled from the file and run on the input that `loadstone.save(probe=…)` described;
    its outputs are compared with those that the file remembers.
    """
    if probe != (target is not None):
        raise click.UsageError("--probe needs --into module:factory, and --into is for --probe")
    from loadstone.checks.verify import verify as verified
    from loadstone.screens.verification import render_verification

    statuses = [CLEAN]
    documents: list[dict[str, object]] = []
    files = [file for path in paths for file in _checkpoints_at(path)]
    for file in files:
        try:
            with output.progress(f"reading {file}"):
                report = verified(file)
        except LoadstoneError as error:
            statuses.append(COULD_NOT)
            documents.append({"path": file, "error": error_document(error)})
            if not is_json:
                output.error(error)
            continue
        statuses.append(CLEAN if report.ok else FINDINGS)
        documents.append(report.to_json())
        if not is_json:
            said = with_flags(report.diagnostics)
            output.answer(
                render_verification(
                    report, width=output.width, color=output.color, diagnostics=said, is_one_of_many=len(files) > 1
                )
            )
        if report.ok and target is not None:
            statuses.append(_probe(output, file, target, keywords, weights, documents[-1], is_json))
    if is_json:
        output.document(documents[0] if len(documents) == 1 else {"checkpoints": documents})
    return max(statuses)


def _probe(
    output: Output, file: str, target: str, keywords: tuple[str, ...], weights: str | None,
    document: dict[str, object], is_json: bool,
) -> int:  # fmt: skip
    """Say whether the model computes what the file remembers; the exit status of that."""
    from loadstone.cli.probing import probed

    try:
        result = probed(file, target, keywords, weights, progress=output.progress)
    except LoadstoneError as error:
        document["probe"] = {"ok": False, "error": error_document(error)}
        if not is_json:
            output.error(error)
        return FINDINGS if error.code == "probe-differs" else COULD_NOT
    document["probe"] = {"ok": True, **asdict(result)}
    if not is_json:
        output.answer(f"  {result}")
    return CLEAN


def _checkpoints_at(path: str) -> list[str]:
    """The path itself, or the checkpoints in the directory of a run."""
    from loadstone.runs.listing import checkpoints, is_run

    if not is_run(Path(path)):
        return [path]
    return [str(entry.path) for entry in checkpoints(path) if entry.state != "unfinished"]
