"""``python -m benchmarks.counted_plan plan ...``: the nightbeam command, with the number of tasks in its log."""

import logging
from typing import Any

import cluster.submit

_run_tasks = cluster.submit.run_tasks


def counted(client: Any, function: Any, tasks: Any, *more: Any, **options: Any) -> list[Any]:
    """Log how many tasks are sent, and send them."""
    logging.getLogger("nightbeam").info("tasks: %d", len(tasks))
    return _run_tasks(client, function, tasks, *more, **options)


if __name__ == "__main__":
    cluster.submit.run_tasks = counted
    from flows.cli import main

    main()
