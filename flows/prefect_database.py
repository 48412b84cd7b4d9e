"""The database of an embedded Prefect server, copied from one that was set up before.

To set up an empty database takes Prefect some seconds. So it is done once for each user and version of Prefect, and
kept in the user's cache folder. Where that fails for whatever reason, the server sets its own database up.
"""

import hashlib
import os
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from storage.whole_file import whole_file

NAME = "prefect.db"
"""What Prefect calls its database in its home folder."""


def provide_database(home: Path) -> None:
    """Put a copy of the empty database that was kept into ``home``, if there is one; a damaged one is removed."""
    # RuntimeError: nobody knows where the user's home is.
    with suppress(OSError, RuntimeError):
        for kept in _all_kept():
            content = kept.read_bytes()
            if kept.name == _name(content):
                with whole_file(home / NAME) as aside:
                    aside.write_bytes(content)
                return
            kept.unlink()


def keep_database(home: Path) -> None:
    """Keep a copy of the database in ``home``, which a server has just set up, unless there is one."""
    with suppress(OSError, sqlite3.Error, RuntimeError):
        if _all_kept():
            return
        with closing(sqlite3.connect(home / NAME)) as database:
            content = database.serialize()
        _cache().mkdir(parents=True, exist_ok=True)
        with whole_file(_cache() / _name(content)) as aside:
            aside.write_bytes(content)


def _all_kept() -> list[Path]:
    return sorted(_cache().glob(f"prefect-{version('prefect')}-*.db"))


def _name(content: bytes) -> str:
    return f"prefect-{version('prefect')}-{hashlib.sha256(content).hexdigest()[:16]}.db"


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative path is to be ignored, says the XDG base directory specification.
    if not base.is_absolute():
        base = Path("~/.cache").expanduser()
    return base / "nightbeam"
