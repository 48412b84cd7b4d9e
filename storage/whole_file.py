"""Files that are there whole or not at all, however many processes write them at once."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder to write to; it takes the place of ``path`` if all goes well.

    Of two processes that write one file at once, the last one's stays. Made for outputs: objects of the store are
    synced as well.

    Parameters
    ----------
    path
        The file to be.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        # A full disk is reported without the file that it was full for.
        error.filename = error.filename or str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)
