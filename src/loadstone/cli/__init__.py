"""The command line: `loadstone inspect`, `plan`, `load`, `explain`.

Exit status: 0 clean, 1 findings, 2 could not do it, 130 interrupted.  Never a traceback: `LOADSTONE_DEBUG=1` shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from loadstone.cli import git as _version_control  # noqa: F401  importing it adds its commands
from loadstone.cli import resume_test as _resume_test  # noqa: F401
from loadstone.cli import runs as _runs  # noqa: F401
from loadstone.cli import verify as _verify  # noqa: F401
from loadstone.cli.commands import commands
from loadstone.cli.output import Output
from loadstone.errors import Diagnostic, IntegrityError, LoadstoneError

COULD_NOT = 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(is_json="--json" in words)
    try:
        status = commands.main(words, prog_name="loadstone", standalone_mode=False, obj=output)
        return status if isinstance(status, int) else 0
    except LoadstoneError as error:
        output.error(error)
    except click.ClickException as error:
        output.misuse(error)
    except (click.Abort, KeyboardInterrupt):
        output.hint("interrupted, nothing was changed")
        return INTERRUPTED
    except OSError as error:
        what = f"`{error.filename}`" if error.filename else "writing the answer"
        output.error(IntegrityError(Diagnostic("io-error", f"{what}: {error.strerror or error}")))
    except Exception as error:
        if os.environ.get("LOADSTONE_DEBUG"):
            raise
        output.internal(error)
    return COULD_NOT


__all__ = ["main"]
