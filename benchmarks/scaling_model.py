"""What a study takes on any number of workers: a model with constants that were measured, and what limits it.

``python -m benchmarks.scaling_model``, from the repository's root. Nothing is run. The constants of Dask come from
`benchmarks.scheduler_load`, those of the study from its geometry and from a few of its tasks (docs/scaling.md).
"""

import argparse
from dataclasses import dataclass, replace

N_GROUP_NOW = 16
"""`flows.solving.N_GROUP`."""


@dataclass(frozen=True)
class Dask:
    """CPU seconds of scheduler and planning process.

    Parameters
    ----------
    scheduler_s, scheduler_worker_s
        Of the scheduler in every second: by itself, and for each worker (heartbeats, and being listed once a second).
    scheduler_task_s, planning_task_s
        For each task.
    planning_evaluation_s, planning_actor_s
        Of the planning process for each evaluation: by itself, and for each actor (two rounds).
    scheduler_actor_s
        Of the scheduler for each actor in an evaluation, if questions and answers pass through it.
    """

    scheduler_s: float = 0.0184
    scheduler_worker_s: float = 0.0002
    scheduler_task_s: float = 0.0026
    planning_task_s: float = 0.0020
    planning_evaluation_s: float = 0.008
    planning_actor_s: float = 0.0017
    scheduler_actor_s: float = 0.0010

    def most_workers(self, task_s: float) -> float:
        """Return how many workers keep a scheduler busy all the time with tasks of a length."""
        return (1.0 - self.scheduler_s) / (self.scheduler_task_s / task_s + self.scheduler_worker_s)

    def tasks_s(self, n_task: int, task_s: float, n_worker: int) -> float:
        """Return the wall seconds of some tasks: of the workers, or of whoever cannot keep up."""
        rounds = -(-n_task // n_worker)
        free = 1.0 - self.scheduler_s - self.scheduler_worker_s * n_worker
        scheduler = n_task * self.scheduler_task_s / free if free > 0.0 else float("inf")
        return max(rounds * task_s, scheduler, n_task * self.planning_task_s)

    def evaluation_s(self, work_s: float, n_worker: int, n_group: int) -> float:
        """Return the wall seconds of an evaluation: groups at work, then one message after another."""
        n_actor = min(n_worker, n_group)
        # Whole groups: the fullest worker counts.
        share = -(-n_group // n_actor) / n_group
        # Scheduler and planning process pass messages on at the same time: the slower one counts.
        messages = n_actor * max(self.planning_actor_s, self.scheduler_actor_s)
        return work_s * share + self.planning_evaluation_s + messages


@dataclass(frozen=True)
class StudySize:
    """A full head and neck, 9 beams, 200 scenarios, on 3 mm: CPU seconds of its parts."""

    n_dose_task: int = 242
    dose_task_s: float = 1.2
    filling_s: float = 283.0
    n_evaluation: int = 200
    evaluation_s: float = 23.0
    n_final_task: int = 1800
    final_task_s: float = 0.45
    judging_s: float = 360.0
    fixed_s: float = 20.0

    def work_s(self) -> float:
        """Return all CPU seconds, in whatever process."""
        tasks = self.n_dose_task * self.dose_task_s + self.n_final_task * self.final_task_s
        return tasks + self.filling_s + self.n_evaluation * self.evaluation_s + self.judging_s

    def stages_s(self, dask: Dask, n_worker: int, n_group: int) -> dict[str, float]:
        """Return the wall seconds of every stage."""
        share = -(-n_group // min(n_worker, n_group)) / n_group
        return {
            "fixed": self.fixed_s,
            "dose": dask.tasks_s(self.n_dose_task, self.dose_task_s, n_worker),
            "fill rows": self.filling_s * share,
            "evaluations": self.n_evaluation * dask.evaluation_s(self.evaluation_s, n_worker, n_group),
            "final dose": dask.tasks_s(self.n_final_task, self.final_task_s, n_worker),
            "judge": self.judging_s,
        }


def table(study: StudySize, dask: Dask, n_group: int, workers: tuple[int, ...]) -> list[str]:
    """Return the stages on some numbers of workers, as a markdown table."""
    lines: list[str] = []
    for n_worker in workers:
        stages = study.stages_s(dask, n_worker, n_group)
        if not lines:
            names = " | ".join(stages)
            lines = [f"| workers | {names} | all, s | efficiency |", "|---|" + "---|" * (len(stages) + 2)]
        wall_s = sum(stages.values())
        cells = " | ".join(f"{s:.0f}" for s in stages.values())
        lines.append(f"| {n_worker} | {cells} | {wall_s:.0f} | {study.work_s() / n_worker / wall_s:.2f} |")
    return lines


def main() -> None:
    """Print what the model says."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    dask, study, workers = Dask(), StudySize(), (1, 10, 16, 64, 100, 256, 1000)
    print("Most workers that one scheduler keeps busy, by the length of a task\n")
    for task_s in (0.1, 0.5, 1.0, 5.0, 30.0):
        print(f"- {task_s:g} s: {dask.most_workers(task_s):.0f}")
    print(
        f"\n200 scenarios of a head and neck, {study.work_s():.0f} CPU s, {N_GROUP_NOW} groups (as it is)\n"
    )
    print("\n".join(table(study, dask, N_GROUP_NOW, workers)))
    print("\nThe same with 256 groups\n")
    print("\n".join(table(study, dask, 256, workers)))
    lighter = replace(study, final_task_s=0.25, judging_s=110.0)
    print("\nThe same with 256 groups, and doses in large chunks\n")
    print("\n".join(table(lighter, dask, 256, workers)))
    spread = replace(lighter, n_final_task=2000, final_task_s=0.28, judging_s=5.0)
    print("\nThe same with 256 groups, doses in large chunks, and judging on the workers\n")
    print("\n".join(table(spread, dask, 256, workers)))


if __name__ == "__main__":
    main()
