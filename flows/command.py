"""What the commands share: options, and how errors are told. Imports nothing heavy, so that help is quick."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from engine.errors import NightbeamError
from flows.failures import in_words
from storage.places.address import Address, BucketAddress, parse_address

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that was asked to end by SIGTERM: 143, as a shell reports it."""
_END_S = 15.0
"""How long a command may take to end when it is asked to: SLURM and systemd do not wait for ever either."""
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


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever tidies up after Ctrl-C does so now."""


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    """Have SIGTERM end what runs inside as Ctrl-C does; what then takes too long is cut off, and children with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    cut_off = threading.Timer(_END_S, os._exit, (TERMINATED,))
    cut_off.daemon = True

    def end(_signal: int, _frame: Any) -> None:
        # Asked once is enough: a job's processes are asked by their parent and by SLURM.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        cut_off.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        raise
    except BaseException as error:
        # Tidying up half-way through something may fail in any way.
        if cut_off.ident is not None:
            raise Terminated from error
        raise
    finally:
        cut_off.cancel()
        signal.signal(signal.SIGTERM, before)


def clear_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print deliberate errors without a traceback and leave with status 2; Ctrl-C leaves with 130, SIGTERM with 143."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _sigterm_like_ctrl_c():
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
