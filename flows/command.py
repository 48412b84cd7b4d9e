"""What the commands share: options, and how errors are told. Imports nothing heavy, so that help is quick."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from engine.errors import NightbeamError
from flows.ending import TERMINATED, Terminated, sigterm_like_ctrl_c
from flows.failures import in_words
from storage.places.address import Address, BucketAddress, parse_address

EPILOG = "nightbeam is research software. Nothing that it writes may be used to treat a patient."


class _Store(click.ParamType[Address]):
    """A folder, or s3://BUCKET/PREFIX."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Return the address, of a folder that is none yet or is one."""
        try:
            address = parse_address(str(value))
        except NightbeamError as error:
            self.fail(str(error), param, ctx)
        if not isinstance(address, BucketAddress):
            click.Path(file_okay=False).convert(value, param, ctx)
        return address


STORE = click.option(
    "--store", type=_Store(), default="runs/store", show_default=True, metavar="DIRECTORY|s3://BUCKET/PREFIX",
    help="Folder of the result store, or its place in S3-compatible object storage (docs/stores.md). Results are found "
    "again there, so give the same one again.",
)  # fmt: skip
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors; the log file has everything.")


def clear_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print deliberate errors without a traceback and leave with status 2; Ctrl-C leaves with 130, SIGTERM with 143."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with sigterm_like_ctrl_c():
                return command(*args, **kwargs)
        except Terminated:
            click.echo("nightbeam: asked to end; the same command goes on where this one was", err=True)
            sys.exit(TERMINATED)
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
