"""CPU seconds, waiting for a processor, messages and bytes of processes, from outside and from inside."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def waited_s(pid: int) -> float:
    """Return how long the main thread of a process was ready to run and had no processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) * 1e-9


class Traffic:
    """Messages and bytes that this process writes to and reads from other Dask processes, from now on."""

    def __init__(self) -> None:
        from distributed.comm import tcp

        self.n_written = self.written_bytes = self.n_read = self.read_bytes = 0
        write, unpack = tcp.TCP.write, tcp.from_frames

        async def counted_write(comm: Any, *arguments: Any, **options: Any) -> int:
            n_byte: int = await write(comm, *arguments, **options)
            self.n_written += 1
            self.written_bytes += n_byte
            return n_byte

        async def counted_unpack(frames: Any, *arguments: Any, **options: Any) -> Any:
            self.n_read += 1
            self.read_bytes += sum(len(frame) for frame in frames)
            return await unpack(frames, *arguments, **options)

        tcp.TCP.write = counted_write  # type: ignore[method-assign]
        tcp.from_frames = counted_unpack

    def now(self) -> tuple[int, int, int, int]:
        """Return messages written, bytes written, messages read, bytes read."""
        return self.n_written, self.written_bytes, self.n_read, self.read_bytes


def difference(look: Callable[[], tuple[int, ...]], before: tuple[int, ...]) -> tuple[int, ...]:
    """Return by how much figures have grown."""
    return tuple(now - then for now, then in zip(look(), before, strict=True))
