"""Creates the environment in which the peer program runs, apart from nightbeam's own.

It needs pip and the standard library only, prints the path of the environment's Python, and does nothing
where the environment is already as asked for.
"""

import argparse
import hashlib
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DEFAULT_FOLDER = Path(__file__).parents[2] / "runs" / "peer-env"
STAMP_NAME = "complete.sha256"


def wanted_stamp() -> str:
    """Return a digest of all that decides the content of the environment: requirements and Python version."""
    text = REQUIREMENTS.read_bytes() + sys.version.encode()
    return hashlib.sha256(text).hexdigest()


def python_of(folder: Path) -> Path:
    """Return the interpreter of the environment in ``folder``."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def ensure(folder: Path) -> Path:
    """Create the environment in ``folder`` unless it is complete, and return its interpreter.

    The stamp is written last: an installation that was broken off leaves none, and is made anew.

    Raises
    ------
    FileExistsError
        If ``folder`` holds something that is not a virtual environment, which would be erased.
    subprocess.CalledProcessError
        If pip fails; its own message is on the error stream.
    """
    stamp = folder / STAMP_NAME
    python = python_of(folder)
    if python.exists() and stamp.exists() and stamp.read_text().strip() == wanted_stamp():
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise FileExistsError(
            f"{folder} is not empty and no virtual environment (it would be erased); choose another folder"
        )
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--requirement", str(REQUIREMENTS)], check=True, stdout=sys.stderr)
    stamp.write_text(wanted_stamp() + "\n")
    return python


def main() -> None:
    """Read the command line and print the interpreter's path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="default: runs/peer-env")
    given = parser.parse_args()
    try:
        print(ensure(given.folder.absolute()))
    except FileExistsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
