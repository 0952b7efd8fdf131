"""Commands for version control: model files in `git diff`, and text that is committed instead of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadstone.cli.commands import CLEAN, FINDINGS, Command, commands, json_option
from loadstone.cli.output import Output
from loadstone.errors import Diagnostic, Fix, SaveError

if TYPE_CHECKING:
    from loadstone.checks.manifest_text import Comparison


@commands.group(short_help="Show model files in `git diff`.")
def git() -> None:
    """Show model files in `git diff`: keys, shapes, norms and values, a line each, and nothing in them is run."""


@git.command(
    cls=Command,
    short_help="Let `git diff` describe model files.",
    examples=("loadstone git setup --dry-run", "loadstone git setup"),
)
@click.option("--global", "is_global", is_flag=True, help="For all repositories of this user.")
@click.option("--dry-run", is_flag=True, help="Show what would be added, and add nothing.")
@json_option
@click.pass_obj
def setup(output: Output, is_global: bool, dry_run: bool, is_json: bool) -> int:
    """Register `loadstone git textconv` in this repository's configuration, and add the model files to .gitattributes.

    What is there already stays; .gitattributes can be committed, the configuration each clone sets up for itself.
    """
    from loadstone.cli.git_setup import apply, planned_setup

    planned = planned_setup(is_global=is_global)
    if not dry_run:
        apply(planned)
    if is_json:
        output.document({**planned.to_json(), "is_dry_run": dry_run})
        return CLEAN
    from loadstone.screens.version_control import render_setup

    output.answer(render_setup(planned, is_dry_run=dry_run, color=output.color, width=output.width))
    if not dry_run and planned.missing:
        output.hint("see it with `git log -p -- '*.pth'`, or `git diff` after the next save")
    return CLEAN


@git.command(cls=Command, short_help="Print a model file as text.", examples=("loadstone git textconv resnet18.pth",))
@click.argument("file", metavar="FILE", type=click.Path())
@click.pass_obj
def textconv(output: Output, file: str) -> int:
    """Print a model file as stable text, a line a tensor: key, dtype, shape, norm, smallest, largest, digest.

    Git calls this for `git diff`. A file that cannot be read is described by what is wrong with it, and the exit status
    is 0 even then, so that the diff goes on. More than 2 GB of values are not read.
    """
    from loadstone.checks.describe import describe

    output.answer(describe(file))
    return CLEAN


@commands.command(
    cls=Command,
    short_help="Write or check a text manifest of a file.",
    examples=(
        "loadstone manifest resnet18.pth -o resnet18.pth.manifest",
        "loadstone manifest --check resnet18.pth resnet18.pth.manifest",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("manifest", metavar="[MANIFEST]", type=click.Path(), required=False)
@click.option("--check", "is_check", is_flag=True, help="Compare FILE with MANIFEST, by default FILE.manifest.")
@click.option("-o", "--output", "destination", metavar="OUT", type=click.Path(),
              help="Write there; an older manifest is replaced.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUT whatever it is.")
@json_option
@click.pass_obj
def manifest(
    output: Output, file: str, manifest: str | None, is_check: bool, destination: str | None, force: bool, is_json: bool
) -> int:
    """Print the tensors of FILE as text, a line each: key, dtype, shape, digest of the values.

    Commit it instead of the weights: it shows in a diff what changed, and proves later that a file is the one meant.
    The same tensors have the same text in every format. With --check, exit status 1 where a tensor differs.
    """
    from loadstone.checkpoint import open_checkpoint
    from loadstone.checks.manifest_text import compare, text_of

    if is_check:
        if destination is not None:
            raise click.UsageError("--check writes nothing; leave out -o")
        beside = manifest or f"{file}.manifest"
        compared = compare(file, _read(beside), beside)
        _show(output, compared, is_json)
        return CLEAN if compared.ok else FINDINGS
    if manifest is not None:
        raise click.UsageError(f"to compare with `{manifest}` add --check, to write it -o {manifest}")
    with open_checkpoint(file) as checkpoint, output.progress(f"reading {file}"):
        text = text_of(checkpoint)
    if destination is not None:
        _write(Path(destination), text, force=force)
        output.hint(f"wrote `{destination}`; compare later with `loadstone manifest --check {file} {destination}`")
    if is_json:
        output.document({"path": file, "manifest": text, "output": destination})
    elif destination is None:
        output.answer(text)
    return CLEAN


def _show(output: Output, compared: Comparison, is_json: bool) -> None:
    if is_json:
        output.document(compared.to_json())
        return
    from loadstone.screens.version_control import render_comparison

    output.answer(render_comparison(compared, color=output.color, width=output.width))


def _read(path: str) -> str:
    from loadstone.io.sources import FileSource

    source = FileSource(path)
    try:
        return source.read(0, source.size).decode("utf-8", "replace")
    finally:
        source.close()


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write it in one step; over an older manifest, over anything else only by force."""
    from loadstone.checks.manifest_text import HEAD
    from loadstone.io.replace import replacing

    if path.exists() and not force:
        with path.open("rb") as file:
            if file.read(len(HEAD)) != HEAD.encode():
                raise SaveError(
                    Diagnostic(
                        "destination-exists",
                        f"`{path}` is already there and is no manifest",
                        fixes=(Fix("replace it", "--force"),),
                    )
                )
    with replacing(path) as target:
        target.write(text.encode())
