#!/usr/bin/env python3
"""A SLURM of one machine, for development: controller and virtual nodes as plain processes in a folder of their own.

Needs root, and Debian's or Ubuntu's packages (`start` installs what is missing); nothing but Python's own library. See
README.md beside this file for the settings, all of which are environment variables.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

STATE = Path(os.environ.get("SLURM_DEV_STATE", "/var/tmp/nightbeam-slurm")).resolve()
N_NODE = int(os.environ.get("SLURM_DEV_NODES", "2"))
N_CORE = int(os.environ.get("SLURM_DEV_CPUS", "2"))
PORT = int(os.environ.get("SLURM_DEV_PORT", "17817"))
GRACE_S = int(os.environ.get("SLURM_DEV_GRACE", "10"))
REQUEUE_WAIT_S = int(os.environ.get("SLURM_DEV_REQUEUE_WAIT", "5"))
NODE_TIMEOUT_S = int(os.environ.get("SLURM_DEV_NODE_TIMEOUT", "20"))

CONFIGURATION = STATE / "slurm.conf"
NODES = [f"dev{number}" for number in range(1, N_NODE + 1)]
CONTROLLER, KEYS = "slurmctld", "munged"
_PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
_MARK = "SLURM_DEV_PART"
_END_S = 10.0
_UP_S = 120.0


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="start what does not run; says the configuration's path")
    stop = commands.add_parser("stop", help="cancel all jobs and end what was started here")
    stop.add_argument("--purge", action="store_true", help="remove the folder, too")
    commands.add_parser("status", help="say what runs")
    for name, what in (
        ("lose", "lose a node at once, with all that runs on it, as if its power had failed"),
        ("restore", "start a node again that was lost"),
    ):
        commands.add_parser(name, help=what).add_argument("node", choices=NODES)
    commands.add_parser("restart-controller", help="end the controller and start it again; jobs go on")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("dev_slurm.py: start me as root")
    os.environ["SLURM_CONF"] = str(CONFIGURATION)
    if given.command == "start":
        start()
    elif given.command == "stop":
        stop_all(given.purge)
    elif given.command == "status":
        status()
    elif given.command == "lose":
        lose(given.node)
    elif given.command == "restore":
        start_node(given.node)
    else:
        kill(CONTROLLER, signal.SIGTERM)
        start_controller()
        wait_for(is_controller_up, f"the controller did not come back; see {STATE / 'log'}")


def start() -> None:
    """Start what does not run: a second start changes nothing, one after a crash repairs."""
    install()
    for folder in ("run", "log", "controller", *NODES):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
    STATE.chmod(0o755)
    wanted = configuration()
    if not CONFIGURATION.exists() or CONFIGURATION.read_text() != wanted:
        if any(is_alive(part) for part in parts()):
            stop_all(purge=False)
        CONFIGURATION.write_text(wanted)
    start_keys()
    start_controller()
    for node in NODES:
        start_node(node)
    wait_for(lambda: nodes_up() == N_NODE, f"SLURM did not come up; see {STATE / 'log'}")
    print(f"SLURM is up: {N_NODE} nodes of {N_CORE} cores. In every shell that is to use it:")
    print(f"export SLURM_CONF={CONFIGURATION}")


def install() -> None:
    """Install the packages of programs that are missing."""
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=quiet, capture_output=True, check=False).returncode != 0:
        subprocess.run(["apt-get", "update"], env=quiet, stdout=subprocess.DEVNULL, check=True)
        subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=True)


def configuration() -> str:
    """Return the text of slurm.conf."""
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mib_per_core = int(0.9 * total_bytes / N_NODE / N_CORE) >> 20
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + number} CPUs={N_CORE} "
        f"RealMemory={mib_per_core * N_CORE} State=UNKNOWN"
        for number, node in enumerate(NODES, start=1)
    )
    return string.Template(Path(__file__).with_name("slurm.conf.in").read_text()).safe_substitute(
        cluster=f"dev{PORT}", host=host, port=PORT, state=STATE, nodes=nodes, mib_per_core=mib_per_core,
        grace_s=GRACE_S, requeue_wait_s=REQUEUE_WAIT_S, node_timeout_s=NODE_TIMEOUT_S,
    )  # fmt: skip


def start_keys() -> None:
    """Start munged with a key and a socket of its own, so that the system's, if there is one, is not touched."""
    if is_alive(KEYS):
        return
    key, door = STATE / "munge.key", STATE / "munge.socket"
    if not key.exists():
        key.touch(mode=0o400)
        key.write_bytes(secrets.token_bytes(128))
    door.unlink(missing_ok=True)
    launch(
        KEYS, "--foreground", f"--key-file={key}", f"--socket={door}", f"--pid-file={STATE / 'munged.pid'}",
        f"--seed-file={STATE / 'munge.seed'}", "--num-threads=2", "--force",
    )  # fmt: skip
    wait_for(lambda: says("munge", "-S", str(door), "-n") != "", f"munged did not start; see {STATE / 'log'}")


def start_controller() -> None:
    """Start the controller, if it does not run."""
    if not is_alive(CONTROLLER):
        launch(CONTROLLER, "-D", "-f", str(CONFIGURATION))


def start_node(node: str) -> None:
    """Start a virtual node, if it does not run."""
    if not is_alive(node):
        launch(node, "-D", "-f", str(CONFIGURATION), "-N", node, program="slurmd")


def lose(node: str) -> None:
    """Kill a node's daemon, its job managers and everything that runs under them, all at once."""
    victims = [pid for pid, _ in marked(node)]
    for pid in victims:
        victims += [child for child in children(pid) if child not in victims]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (STATE / "run" / node).unlink(missing_ok=True)
    print(
        f"{node} is lost, with {len(victims)} processes; the controller notices within {NODE_TIMEOUT_S} s or so"
    )


def stop_all(purge: bool) -> None:
    """Cancel all jobs, end what was started here, and nothing else."""
    if is_alive(CONTROLLER) and any(is_alive(node) for node in NODES):
        for job in set(says("squeue", "-h", "-o", "%A").split()):
            says("scancel", job)
        limit_s = time.monotonic() + 2.0 * _END_S
        while says("squeue", "-h") and time.monotonic() < limit_s:
            time.sleep(0.2)
    for part in [*parts(), CONTROLLER, KEYS]:
        kill(part, signal.SIGTERM)
    for pid, _ in marked():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if purge:
        shutil.rmtree(STATE, ignore_errors=True)
    print("SLURM is stopped" + (", its folder removed" if purge else ""))


def status() -> None:
    """Say which daemons run, and what SLURM says of its nodes and jobs."""
    for part in (KEYS, CONTROLLER, *NODES):
        print(f"{part:10} {'runs' if is_alive(part) else 'does not run'}")
    if is_alive(CONTROLLER):
        print(says("sinfo", "-o", "%10P %6t %3D %N"))
        print(says("squeue", "-o", "%6i %20j %10P %9T %8M %N %r"))


def launch(part: str, *arguments: str, program: str | None = None) -> None:
    """Start a daemon on its own and note its process id, with the time of its start: ids are used again."""
    with (STATE / "log" / f"{part}.out").open("ab") as out:
        process = subprocess.Popen(
            [shutil.which(program or part) or program or part, *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, _MARK: f"{STATE}:{part}"},
        )  # fmt: skip
    (STATE / "run" / part).write_text(json.dumps([process.pid, begun(process.pid)]))


def parts() -> list[str]:
    """Return the nodes that were ever started here."""
    return [path.name for path in (STATE / "run").glob("*") if path.name not in (CONTROLLER, KEYS)]


def is_alive(part: str) -> bool:
    """Return whether the very process that was started as a part still runs."""
    try:
        pid, start = json.loads((STATE / "run" / part).read_text())
    except FileNotFoundError:
        return False
    return bool(start) and begun(pid) == start


def kill(part: str, how: signal.Signals) -> None:
    """End a part, with SIGKILL if it takes too long."""
    if is_alive(part):
        pid = json.loads((STATE / "run" / part).read_text())[0]
        os.kill(pid, how)
        limit_s = time.monotonic() + _END_S
        while is_alive(part) and time.monotonic() < limit_s:
            time.sleep(0.05)
        if is_alive(part):
            os.kill(pid, signal.SIGKILL)
    (STATE / "run" / part).unlink(missing_ok=True)


def begun(pid: int) -> str:
    """Return when a process began, in ticks of the kernel; an empty text if it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def marked(part: str = "") -> Iterator[tuple[int, str]]:
    """Yield the processes of a part, or of all: daemons hand their environment to the managers of jobs."""
    mark = f"{_MARK}={STATE}:{part}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                for value in (entry / "environ").read_bytes().split(b"\0"):
                    if value.startswith(mark) and (not part or value == mark):
                        yield int(entry.name), value.decode()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def nodes_up() -> int:
    """Return how many nodes can take jobs."""
    states = says("sinfo", "-h", "-N", "-p", "batch", "-o", "%t").split()
    return sum(state in ("idle", "mix", "alloc") for state in states)


def is_controller_up() -> bool:
    """Return whether the controller answers."""
    return "UP" in says("scontrol", "ping")


def says(*command: str) -> str:
    """Return what a command prints; an empty text if it fails."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds."""
    limit_s = time.monotonic() + _UP_S
    while not condition():
        if time.monotonic() > limit_s:
            sys.exit(f"dev_slurm.py: {otherwise}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
