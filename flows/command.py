"""What the commands share: options, and how errors are told. Imports nothing heavy, so that help is quick."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from engine.errors import CaseError, DicomError, NightbeamError, VolumeError, printable, reason_and_remedy
from storage.places.address import Address, BucketAddress, parse_address

LONGEST_MESSAGE = 2000
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
    """Print deliberate errors without a traceback and leave with status 2; Ctrl-C leaves with 130."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except NightbeamError as error:
            _tell(error)
            sys.exit(2)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else "cannot read or write: "
            text = printable(f"nightbeam: {where}{reason_and_remedy(error)}")
            click.echo(text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} …", err=True)
            sys.exit(2)
        except MemoryError:
            click.echo("nightbeam: not enough memory; use a coarser dose grid or fewer scenarios", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("nightbeam: stopped; the same command goes on where this one was", err=True)
            sys.exit(130)
        except Exception as error:
            # Prefect notes an error in its database, and on a full disk fails at that itself.
            deliberate = _deliberate_behind(error)
            if deliberate is None:
                raise
            _tell(deliberate)
            sys.exit(2)

    return wrapped


def _tell(error: NightbeamError) -> None:
    """Print the message of an error; names in it come from files, and files from anywhere."""
    text = f"nightbeam: {error}"
    if isinstance(error, CaseError | DicomError | VolumeError):
        # Lists in our messages are indented; any other line end is part of a name.
        text = re.sub(r"\n(?!  )", "?", text)
    click.echo(printable(text, newlines=True), err=True)


def _deliberate_behind(error: BaseException) -> NightbeamError | None:
    """Return the last deliberate error that was being handled when ``error`` came up."""
    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, NightbeamError):
        behind = behind.__cause__ or behind.__context__
    return behind
