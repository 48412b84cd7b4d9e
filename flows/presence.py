"""Flow runs say which process they are, so that those whose process is gone can be told from those that go on.

Prefect's server keeps a run whose process was killed as "Running" for ever, unless the worker that started it lives
and sees it end.
"""

import time
from collections.abc import Mapping
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State

from storage.holder import Holder, this_process

_PREFIX = "nightbeam."


def sign(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Label a run with its process; to be given to every flow as ``on_running=[sign]``."""
    del flow, state
    process = this_process(time.time())
    labels: dict[str, Any] = {
        f"{_PREFIX}host": process.host,
        f"{_PREFIX}machine": process.machine,
        f"{_PREFIX}pid": process.pid,
        f"{_PREFIX}started": process.started,
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, labels)


def process_of(labels: Mapping[str, Any]) -> Holder | None:
    """Return the process that a run's labels name; None if it did not sign."""
    found = {name: labels.get(_PREFIX + name) for name in ("host", "machine", "pid", "started")}
    if None in found.values():
        return None
    return Holder(
        str(found["host"]), str(found["machine"]), int(found["pid"] or 0), int(found["started"] or 0), "", 0.0
    )
