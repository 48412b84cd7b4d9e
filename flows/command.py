"""What the commands share: options, and how errors are told. Imports nothing heavy, so that help is quick."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from flows.failures import in_words

EPILOG = "nightbeam is research software. Nothing that it writes may be used to treat a patient."

STORE = click.option(
    "--store", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/store"), show_default=True,
    help="Folder of the result store. Results are found again there, so give the same one again.",
)  # fmt: skip
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors; the log file has everything.")


def clear_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print deliberate errors without a traceback and leave with status 2; Ctrl-C leaves with 130."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("nightbeam: stopped; the same command goes on where this one was", err=True)
            sys.exit(130)
        except Exception as error:
            words = in_words(error)
            if words is None:
                raise
            click.echo(f"nightbeam: {words}", err=True)
            sys.exit(2)

    return wrapped
