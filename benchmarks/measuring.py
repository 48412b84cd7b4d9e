"""How things are measured: CPU seconds of this process, the plain read of memory, and the machine at that time."""

import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine._jit import kernel
from engine.influence.rows import RowGroup

Result = TypeVar("Result")
Words = npt.NDArray[np.uint64]


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what ``work`` returns, and the CPU seconds it took."""
    begin_s = time.process_time()
    result = work()
    return result, time.process_time() - begin_s


def in_turn(works: dict[str, Callable[[], object]], n_repeat: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every repeat, after one that does not count.

    All are run in turn, so that what disturbs the machine for a while disturbs them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(n_repeat + 1):
        for name, work in works.items():
            spent_s = timed(work)[1]
            if repeat:
                seconds[name].append(spent_s)
    return seconds


def least_and_median(seconds: Sequence[float]) -> dict[str, float]:
    """Return the two figures of repeated work that are kept."""
    return {"least": min(seconds), "median": float(np.median(seconds))}


@kernel
def _sum_of_words(words: Words) -> int:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


def plain_reads(groups: Sequence[RowGroup]) -> dict[str, Callable[[], object]]:
    """Return two ways to read all bytes of the tiles once: sums of 64-bit words, by numpy and by a compiled loop.

    The faster one of them is the floor for anything that has to look at every byte.
    """
    arrays = [
        np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for group in groups
        for array in (group.beamlet, group.scale, group.segment_begin, group.mini, group.value)
    ]
    words = [array[: array.size // 8 * 8].view(np.uint64) for array in arrays]
    return {
        "plain read, numpy": lambda: [int(part.sum()) for part in words],
        "plain read, compiled": lambda: [_sum_of_words(part) for part in words],
    }


def peak_memory_mib() -> float:
    """Return the largest resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def available_bytes() -> int:
    """Return the memory that a process could still get without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def machine() -> str:
    """Return processor, cores and load in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{names[0] if names else 'unknown processor'}, {cores} cores, load average {os.getloadavg()[0]:.1f}"
    )
