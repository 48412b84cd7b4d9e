"""The embedded Prefect server: started for a run, on loopback, and stopped with it.

Whoever runs a Prefect server of their own sets PREFECT_API_URL, and it is used instead. Nothing here talks to the
internet: analytics and notices are switched off.

Each server has a folder and a database of its own, so that runs on one store do not meet there, and a run that was
killed leaves nothing behind that the next one would have to go on with.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import NightbeamError, StoreError
from flows.prefect_database import keep_database, provide_database
from storage.lease import live_since, take_run_lease
from storage.lease_files import FOLDER
from storage.places.folder import Folder

_START_LIMIT_S = 90.0
_PR_SET_PDEATHSIG = 1

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
}


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, so that a killed run leaves no server behind.

    The parent alone ends it: SLURM asks all processes of a job to end at once (SIGTERM), and without its server a flow
    would try for half a minute to tell it that it ends.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    # A shell has commands in its background ignore it, and their children would, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _home(folder: Path) -> dict[str, str]:
    return {"PREFECT_HOME": str(folder), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}


class EmbeddedServer:
    """A server that is starting or running; call `wait` before it is needed."""

    def __init__(self, home: Path) -> None:
        provide_database(home)
        self._home = home
        self._log = home / "server.log"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        # On a shared login node loopback is not private: a password made for this run.
        self.password = f"nightbeam:{secrets.token_urlsafe(24)}"
        environment = {
            **os.environ,
            **QUIET,
            **_home(home),
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
        }
        with self._log.open("wb") as log:
            # Services (late-run marking, event recording, schedules) are of no use to a server that lives for a run.
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
                    "--port", str(self.port), "--no-services",
                ],
                env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Return when the server answers.

        Raises
        ------
        NightbeamError
            If it ends, or does not answer within 90 s.
        """
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < _START_LIMIT_S:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    keep_database(self._home)
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        tail = self._log.read_text(errors="replace")[-800:]
        raise NightbeamError(
            f"the embedded Prefect server did not start (its log {self._log} ends with:\n{tail})"
        )

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def prefect_api(home: Path) -> Iterator[Callable[[], None]]:
    """Have a Prefect API: the one that PREFECT_API_URL names, or an embedded server with a folder in ``home``.

    Yields a function to call before the API is used, which waits until it answers.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    if os.environ.get("PREFECT_API_URL"):
        yield lambda: None
        return
    with own_folder(home) as own:
        os.environ.update(_home(own))
        server = EmbeddedServer(own)
        try:
            os.environ["PREFECT_API_URL"] = server.url
            os.environ["PREFECT_API_AUTH_STRING"] = server.password
            yield server.wait
        except KeyboardInterrupt:
            # There may be little time, and its folder goes with it.
            server.kill()
            raise
        finally:
            del os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"]
            server.stop()


@contextmanager
def own_folder(home: Path) -> Iterator[Path]:
    """Make a folder for this run, which is removed at its end; remove those of runs that are gone."""
    for other in home.glob("*/"):
        # Without any lease it is being made just now.
        if any((other / FOLDER).glob("*")):
            with suppress(StoreError):
                if live_since(other) is None:
                    shutil.rmtree(other, ignore_errors=True)
    own = home / uuid.uuid4().hex[:8]
    Folder(own).prepare()
    with take_run_lease(own):
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
