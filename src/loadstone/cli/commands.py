"""The commands: each gathers its words, calls the library, and hands a screen or a document to the one sink.

Whatever is heavy is imported inside the command that needs it: `inspect` of a large file has 250 ms in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

import loadstone
from loadstone.cli.flags import with_flags
from loadstone.cli.output import Output
from loadstone.errors import LoadstoneError

if TYPE_CHECKING:
    from loadstone.matching.plan import Plan

CLEAN, FINDINGS, COULD_NOT = 0, 1, 2
_SHELLS = ("bash", "zsh", "fish")


class Command(click.Command):
    """A command whose help ends with examples, one a line, as they are typed."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write_text(example)


class _Commands(click.Group):
    """The commands in the order of this file: first what people do first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(loadstone.__version__, "-V", "--version", prog_name="loadstone", message="%(prog)s %(version)s")
def commands() -> None:
    """Open any PyTorch model file without running it, see how it fits your model, load it all or nothing.

    Exit status: 0 clean, 1 findings, 2 could not do it.
    """


json_option = click.option("--json", "is_json", is_flag=True, help="One JSON object on stdout instead of a screen.")
_all = click.option("--all", "all_rows", is_flag=True, help="Every row, however many there are.")
_weights = click.option("--weights", metavar="NAME", help="Which set of weights, where the file holds several.")


@commands.command(
    cls=Command,
    short_help="Show what is in model files.",
    examples=("loadstone inspect resnet50.pth", "loadstone inspect --json runs/*/last.ckpt"),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@_weights
@_all
@json_option
@click.pass_obj
def inspect(output: Output, /, files: tuple[str, ...], weights: str | None, all_rows: bool, is_json: bool) -> int:
    """Show what is in model files: format, weights, what else they hold, and whether they are safe.

    Only headers are read, nothing in a file is run, and PyTorch is not needed.
    Exit status 0 where every file could be read; what a file asks to be run is shown, and is not run.
    """
    statuses: list[int] = []
    documents: list[dict[str, object]] = []
    for number, file in enumerate(files):
        try:
            with loadstone.open(file, weights=weights) as checkpoint:
                if is_json:
                    from loadstone.cli.documents import inspection

                    documents.append(inspection(checkpoint))
                else:
                    from loadstone.screens.inspection import next_step, render_inspection

                    screen = render_inspection(
                        checkpoint, width=output.width, color=output.color, all_rows=all_rows,
                        diagnostics=with_flags(checkpoint.diagnostics),
                    )  # fmt: skip
                    output.answer(("\n" if number else "") + screen)
                    output.hint(next_step(checkpoint))
            statuses.append(CLEAN)
        except LoadstoneError as error:
            statuses.append(COULD_NOT)
            if not is_json:
                output.error(error)
                continue
            from loadstone.cli.output import error_document
            from loadstone.io.addresses import shown

            documents.append({"path": shown(file), "error": error_document(error)})
    if is_json:
        output.document(documents[0] if len(files) == 1 else {"checkpoints": documents})
    return max(statuses)


# What a person decided about keys, in the words that Python has for it.
_OPTIONS = (
    click.option(
        "--into",
        "target",
        metavar="TARGET",
        required=True,
        help="module:factory (imported from here), another checkpoint, or the JSON of `inspect --json`.",
    ),
    click.option(
        "--set",
        "keywords",
        metavar="NAME=VALUE",
        multiple=True,
        help="A keyword argument for the factory; VALUE is JSON, or else text.",
    ),
    _weights,
    click.option("--rename", metavar="REGEX=REPL", multiple=True, help="Rename checkpoint keys, in the order given."),
    click.option("--only", metavar="GLOB", multiple=True, help="Only these checkpoint keys take part."),
    click.option("--drop", metavar="GLOB", multiple=True, help="Leave these checkpoint keys out."),
    click.option("--fresh", metavar="GLOB", multiple=True, help="These model keys keep the values they have."),
    click.option(
        "--adapt",
        metavar="GLOB=HOW",
        multiple=True,
        help="Where shapes differ: fresh, slice, pad, channels, interpolate, vocabulary; cast where it breaks values.",
    ),
    click.option("--match", type=click.Choice(["names", "structure"]), help="By names, or also by layers and shapes."),
    click.option(
        "--answer",
        "answers",
        metavar="MODEL_KEY=CHECKPOINT_KEY",
        multiple=True,
        help="For a question of --match structure.",
    ),
    click.option("--no-strict", is_flag=True, help="Load what is certain, and report the rest."),
    click.option("--dtype", metavar="DTYPE", help="The dtype that parameters end up in, such as bfloat16."),
    click.option("--recipe", metavar="FILE", type=click.Path(), help="Take these options from a TOML file."),
)


def _matching_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@commands.command(
    cls=Command,
    short_help="Show key by key how FILE fits TARGET.",
    examples=(
        "loadstone plan resnet50.pth --into torchvision.models:resnet50",
        "loadstone plan resnet50.pth --into models:build --set num_classes=10 --fresh fc",
        "loadstone plan new.ckpt --into old.ckpt",
        "loadstone plan resnet50.pth --into hf:ResNet50 --match structure",
        "loadstone plan theirs.pth --into ours:Net --match structure --reference theirs:Net --input 1,3,224,224",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path())
@_matching_options
@click.option("-o", "--output", "recipe_out", metavar="FILE", type=click.Path(), help="Write the options as a recipe.")
@click.option("--force", is_flag=True, help="Replace the recipe if it is there.")
@click.option("--values", "reads_values", is_flag=True, help="Also read the values, and say where they look odd.")
@click.option("--reference", metavar="TARGET", help="Answer what is open by running the model beside this one.")
@click.option("--input", "shapes", metavar="SIZES", multiple=True,
              help="For --reference: sizes of an input, such as 1,3,224,224; once for each argument.")  # fmt: skip
@click.option("--input-dtype", metavar="DTYPE", default="float32", show_default=True, help="The dtype of the inputs.")
@_all
@json_option
@click.pass_obj
def plan(
    output: Output, /, file: str, target: str, keywords: tuple[str, ...], recipe_out: str | None, force: bool,
    reads_values: bool, reference: str | None, shapes: tuple[str, ...], input_dtype: str, all_rows: bool,
    is_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Show key by key how FILE fits TARGET, before anything is loaded.

    Exit status 0 where every key is settled, 1 where something is left to decide.
    """
    from loadstone.cli.planning import plan_for, with_values, write_recipe

    if reference is None:
        made = plan_for(file, target, keywords, options)
    else:
        from loadstone.cli.deciding import decided_plan

        made = decided_plan(file, target, keywords, options, reference, shapes, input_dtype, progress=output.progress)
    if reads_values:
        with output.progress(f"reading {file}"):
            made = with_values(made, target)
    if recipe_out is not None:
        write_recipe(made, recipe_out, force=force)
    _show_plan(output, made, all_rows, is_json)
    if recipe_out is not None:
        output.hint(f"the options are in `{recipe_out}`; use them with `--recipe {recipe_out}`")
    return CLEAN if made.ok else FINDINGS


@commands.command(
    cls=Command,
    short_help="Load FILE into TARGET and save the result.",
    examples=("loadstone load old.pth --into models:resnet18 --rename '^encoder\\.=' -o new.safetensors",),
)
@click.argument("file", metavar="FILE", type=click.Path())
@_matching_options
@click.option("-o", "--output", "destination", metavar="OUT", required=True, type=click.Path(),
              help="Where to save the loaded model: .safetensors, .pth or .pt.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@_all
@json_option
@click.pass_obj
def load(
    output: Output, /, file: str, target: str, keywords: tuple[str, ...], destination: str, force: bool,
    all_rows: bool, is_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Load FILE into the model that TARGET builds, and save it as OUT: all of it, or nothing.

    Exit status 1, and nothing written, where something is left to decide.
    """
    from loadstone.cli.planning import load_and_save
    from loadstone.screens import quantities

    made = load_and_save(file, target, keywords, options, destination, force=force, progress=output.progress)
    _show_plan(output, made, all_rows, is_json, is_done=made.ok)
    if not made.ok:
        return FINDINGS
    output.hint(f"wrote `{destination}`, {quantities.nbytes(Path(destination).stat().st_size)}")
    return CLEAN


@commands.command(
    cls=Command,
    short_help="Export FILE as a program, compared with the model.",
    examples=(
        "loadstone export resnet50.pth --into torchvision.models:resnet50 --input 1,3,224,224 -o resnet50.pt2",
        "loadstone export bert.pt --into models:bert --input 1,128 --dtype int64 --dynamic-batch -o bert.pt2",
    ),
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--into", "target", metavar="TARGET", required=True, help="module:factory (imported from here).")
@click.option("--set", "keywords", metavar="NAME=VALUE", multiple=True,
              help="A keyword argument for the factory; VALUE is JSON, or else text.")  # fmt: skip
@click.option("--input", "shapes", metavar="SIZES", multiple=True, required=True,
              help="Sizes of an example input, such as 1,3,224,224; once for each argument of the model.")  # fmt: skip
@click.option("--dtype", metavar="DTYPE", default="float32", show_default=True, help="The dtype of the inputs.")
@click.option("--dynamic-batch", is_flag=True, help="The first size of every input may change.")
@click.option("--script", is_flag=True, help="For .pt: compile the model's code with its branches.")
@click.option("--tolerance", metavar="SHARE", type=float,
              help="Largest difference let pass, as a share of an output's largest value.")  # fmt: skip
@_weights
@click.option("--recipe", metavar="FILE", type=click.Path(), help="Take the options of loading from a TOML file.")
@click.option("-o", "--output", "destination", metavar="OUT", required=True, type=click.Path(),
              help="Where to write: .pt2 (torch.export) or .pt (TorchScript).")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@json_option
@click.pass_obj
def export(
    output: Output, /, file: str, target: str, keywords: tuple[str, ...], shapes: tuple[str, ...], dtype: str,
    weights: str | None, recipe: str | None, destination: str, force: bool, is_json: bool, **options: Any,
) -> int:  # fmt: skip
    """Load FILE into the model that TARGET builds, and export it as OUT: a program that needs no Python code.

    OUT is loaded back, run beside the model and compared with it before it takes its name.
    Exit status 1, and nothing written, where something is left to decide.
    """
    from loadstone.cli.export import load_and_export, with_flags_of_export
    from loadstone.matching.plan import Plan

    made = load_and_export(
        file, target, keywords, shapes, dtype, destination, loading={"weights": weights, "recipe": recipe},
        options=options, force=force, progress=output.progress,
    )  # fmt: skip
    if isinstance(made, Plan):
        _show_plan(output, made, False, is_json)
        return FINDINGS
    if is_json:
        output.document(made.to_json())
        return CLEAN
    from loadstone.screens.export import render_export

    said = with_flags_of_export(made.diagnostics)
    output.answer(render_export(made, width=output.width, color=output.color, diagnostics=said))
    return CLEAN


def _show_plan(output: Output, made: Plan, all_rows: bool, is_json: bool, *, is_done: bool = False) -> None:
    if is_json:
        import json

        output.document(json.loads(made.to_json()))
        return
    from loadstone.screens.plan import next_step, render_plan

    spoken = replace(made, diagnostics=with_flags(made.diagnostics))
    output.answer(render_plan(spoken, width=output.width, color=output.color, all_rows=all_rows))
    if not is_done:
        output.hint(next_step(made))


def _complete_code(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from loadstone.catalog import CATALOG

    return [CompletionItem(code, help=entry.title) for code, entry in CATALOG.items() if code.startswith(incomplete)]


@commands.command(cls=Command, short_help="Explain a diagnostic code.", examples=("loadstone explain shape-mismatch",))
@click.argument("code", metavar="[CODE]", required=False, shell_complete=_complete_code)
@json_option
@click.pass_obj
def explain(output: Output, code: str | None, is_json: bool) -> int:
    """Explain a diagnostic code; without one, list them all."""
    from dataclasses import asdict

    from loadstone.catalog import CATALOG
    from loadstone.screens.explanation import codes_near, render_codes, render_explanation

    if code is not None and code not in CATALOG:
        near = ", ".join(codes_near(code)) or "see `loadstone explain` for all of them"
        raise click.UsageError(f"there is no code `{code}`; near: {near}")
    if is_json:
        output.document(asdict(CATALOG[code]) if code else {"codes": [asdict(entry) for entry in CATALOG.values()]})
    elif code:
        output.answer(render_explanation(code, width=output.width, color=output.color))
    else:
        output.answer(render_codes(width=output.width, color=output.color))
    return CLEAN


@commands.command(
    cls=Command,
    short_help="Print the completion script of a shell.",
    examples=(
        'eval "$(loadstone completion bash)"',
        "loadstone completion fish > ~/.config/fish/completions/loadstone.fish",
    ),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_obj
def completion(output: Output, shell: str) -> int:
    """Print the script that makes a shell complete loadstone's words."""
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    assert completer is not None  # click has all three
    output.answer(completer(commands, {}, "loadstone", "_LOADSTONE_COMPLETE").source() + "\n")
    return CLEAN
