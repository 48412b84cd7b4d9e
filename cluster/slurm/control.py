"""What a controlling job runs: ``python -m cluster.slurm.control OUTPUT N_CORE COMMAND...``.

The command is a child. Before the job's walltime ends (SIGUSR1) the child is asked to end, and the job goes back into
the queue; where a site forbids that, the same job script is submitted again. A child that dies is started again. Both
happen a few times only without any progress in between. SIGTERM is somebody's will (`scancel`), or SLURM's, which then
puts the job back itself: the child is asked to end, and this process ends.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from cluster.slurm.commands import run_slurm
from cluster.slurm.controlling_job import ControllingJob
from engine.errors import ClusterError

DONE = (0, 2)
"""Exit statuses that end the job: all is well, or something that only a person can mend."""
ASKED_TO_END = 128 + signal.SIGTERM
MAX_IN_VAIN = 3
_LOOK_S = 10.0
_END_S = 20.0
"""How long the child may take to end when it is asked to."""
_AGAIN_S = 5.0
_REQUEUED_S = 90.0
"""How long SLURM may take to end a job that it was asked to put back into the queue."""
_PROGRESS = ("progress.json", "*/progress.json", "*/*/progress.json")
_WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)


class Control:
    """One start of a controlling job.

    Parameters
    ----------
    files
        Its files.
    job
        Number of the job.
    name
        Name of the job.
    n_core
        Cores that the planning process has.
    """

    def __init__(self, files: ControllingJob, job: str, name: str, n_core: int) -> None:
        self._files, self._job, self._name, self._n_core = files, job, name, n_core
        self._begun_s = time.time()
        before = files.read_state()
        self._furthest: dict[str, int] = before.get("furthest", {})
        self._n_in_vain: int = before.get("n_in_vain", 0)
        self._n_start: int = before.get("n_start", 0)
        self._got_further = False

    def run(self, command: Sequence[str]) -> int:
        """Run the command until it is done or the job has to end; returns the exit status of the job.

        Signals that are watched have to be blocked.
        """
        self._note_progress()
        while True:
            self._n_start += 1
            self._got_further = False
            self._keep("running")
            _say(f"job {self._job} on {socket.gethostname()}, start {self._n_start}: {shlex.join(command)}")
            code, asked = self._run_child(command)
            if code in DONE:
                how = "completed" if code == 0 else "failed"
                return self._end(
                    "done" if code == 0 else "failed", how, code, f"the command ended with status {code}"
                )
            if asked is signal.SIGTERM:
                return self._end("stopped", "cancelled", ASKED_TO_END, "asked to end; so it is")
            self._n_in_vain = 0 if self._got_further else self._n_in_vain + 1
            what = "its walltime ends" if asked else f"the command was {_how(code)}"
            if self._n_in_vain >= MAX_IN_VAIN:
                why = (
                    f"{what}: that is {self._n_in_vain} times without any progress in between; find out why "
                    f"{'and ask for a longer walltime of [controller]' if asked else '(nightbeam.log says more)'}, "
                    "then submit it again: it goes on where it was"
                )
                return self._end("failed", "walltime" if asked else "failed", _status(code), why)
            if asked:
                return self._queue_again(what)
            _say(f"{what}; starting it again")
            if _next_signal(_AGAIN_S * self._n_in_vain, (signal.SIGTERM,)) is signal.SIGTERM:
                return self._end("stopped", "cancelled", ASKED_TO_END, "asked to end; so it is")

    def _run_child(self, command: Sequence[str]) -> tuple[int, signal.Signals | None]:
        """Return how the child ended, and which signal to this process made it."""
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED),
        )
        asked: signal.Signals | None = None
        limit_s = float("inf")
        while child.poll() is None:
            got = _next_signal(_LOOK_S if asked is None else 0.5)
            self._note_progress()
            if got in (signal.SIGTERM, signal.SIGUSR1) and asked is not signal.SIGTERM:
                asked = got
                limit_s = min(limit_s, time.monotonic() + _END_S)
                child.terminate()
            if time.monotonic() > limit_s:
                child.kill()
        # SLURM asks all processes of a job at once: the child may have ended before the request was seen here.
        got = _next_signal(0.2, (signal.SIGTERM, signal.SIGUSR1))
        self._note_progress()
        return child.returncode, got or asked

    def _queue_again(self, why: str) -> int:
        """Put the job back into the queue, or submit its script again where the site forbids that."""
        _say(f"{why}; going back into the queue")
        self._keep("queued again")
        try:
            run_slurm(["scontrol", "requeue", self._job])
        except ClusterError as error:
            _say(f"SLURM does not put the job back ({error}); submitting its script again")
        else:
            self._note_usage("walltime")
            # SLURM ends this process in a moment: whatever it ends with by itself would be the end of the job.
            _next_signal(_REQUEUED_S, (signal.SIGTERM,))
            return ASKED_TO_END
        try:
            job = self._files.submit(self._name, after=self._job)
        except (ClusterError, OSError) as error:
            why = f"{error}; submit it again from a login node: it goes on where it was"
            return self._end("stopped", "walltime", ASKED_TO_END, why)
        _say(f"it goes on as job {job}")
        self._note_usage("walltime")
        return ASKED_TO_END

    def _end(self, state: str, how: str, status: int, why: str) -> int:
        _say(why)
        self._keep(state, why)
        self._note_usage(how)
        return status

    def _keep(self, state: str, why: str = "") -> None:
        told: dict[str, Any] = {"job": self._job, "state": state, "why": why, "n_start": self._n_start}
        with suppress(OSError):
            self._files.write_state({**told, "n_in_vain": self._n_in_vain, "furthest": self._furthest})

    def _note_progress(self) -> None:
        """Look into the files that tell progress: that of the command, and those of the cases of a batch."""
        further = False
        # Not everywhere below: the store may be there, too.
        for file in chain.from_iterable(map(self._files.output.glob, _PROGRESS)):
            with suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(file.read_text(encoding="utf-8"))
                stage = f"{file.parent.relative_to(self._files.output)}: {told['stage']}"
                if told["done"] > self._furthest.get(stage, -1):
                    self._furthest[stage] = told["done"]
                    further = True
        if further:
            self._got_further = True
            self._keep("running")

    def _note_usage(self, how: str) -> None:
        line = {
            "job": self._job, "host": socket.gethostname(), "cores": self._n_core,
            "begin": self._begun_s, "end": time.time(), "how": how,
        }  # fmt: skip
        with suppress(OSError), (self._files.output / "usage.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def _next_signal(wait_s: float, wanted: Sequence[signal.Signals] = _WATCHED) -> signal.Signals | None:
    got = signal.sigtimedwait(wanted, wait_s)
    return None if got is None else signal.Signals(got.si_signo)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended by a mistake (status {code})"


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def main(output: str, n_core: str, *command: str) -> int:
    """Run a controlling job; number and name are in its environment."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    job, name = os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_NAME"]
    return Control(ControllingJob(Path(output)), job, name, int(n_core)).run(command)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
