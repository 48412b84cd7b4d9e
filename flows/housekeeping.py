"""Prefect flow: runs whose process is gone are marked as crashed, so that none stays "Running" for ever.

Old runs and events are deleted by Prefect's server itself (PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED), but only runs
that have ended.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed

from flows.presence import process_of, sign
from storage.holder import this_process

_PAGE = 200
_EVENTS_LIMIT_S = 60.0


@flow(name="housekeeping", persist_result=False, on_running=[sign])
def keep_house(silence_s: float = 900.0) -> int:
    """Mark runs as crashed whose process is gone; returns how many.

    Parameters
    ----------
    silence_s
        A run of another machine, or of a flow that does not sign, counts as gone when it has been running for so long
        and sent no heartbeat for so long. Heartbeats come every PREFECT_FLOWS_HEARTBEAT_FREQUENCY seconds (180 if it
        is not set), and a single one may get lost: give several times that.
    """
    log = get_run_logger()
    n_crashed = 0
    with get_client(sync_client=True) as client:
        others = [run for run in _unfinished(client) if str(run.id) != runtime.flow_run.id]
        heartbeats_arrive = _heartbeats_arrive(client)
        if not heartbeats_arrive:
            log.warning(
                "this run's own heartbeat did not arrive in the server's database within %g s, so nothing is made of "
                "others' silence (is PREFECT_FLOWS_HEARTBEAT_FREQUENCY set, and the server well?)",
                _EVENTS_LIMIT_S,
            )
        for run in others:
            why = _why_gone(run)
            if why is None and heartbeats_arrive:
                why = _why_silent(client, run, silence_s)
            if why is not None:
                log.warning("'%s' is marked as crashed: %s", run.name, why)
                _mark(client, run, why)
                n_crashed += 1
    return n_crashed


def _unfinished(client: SyncPrefectClient) -> Iterator[FlowRun]:
    """Yield runs that have begun, or are about to, and have not ended."""
    of_these = FlowRunFilter(
        state=FlowRunFilterState(
            type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
        )
    )
    for offset in range(0, 1_000_000, _PAGE):
        page = client.read_flow_runs(
            flow_run_filter=of_these, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
        )
        yield from page
        if len(page) < _PAGE:
            return


def _why_gone(run: FlowRun) -> str | None:
    """Return why the process of a run surely lives no more; None if it may."""
    process = process_of(run.labels)
    if process is not None and process.is_gone():
        return f"its process ended without a word ({process})"
    return None


def _why_silent(client: SyncPrefectClient, run: FlowRun, silence_s: float) -> str | None:
    """Return that nothing was heard of a run for too long; None if something was."""
    process = process_of(run.labels)
    if process is not None and process.machine == this_process(0.0).machine:
        return None  # it lives, as was seen; only its heartbeats were lost
    since = run.state.timestamp if run.state is not None else run.expected_start_time
    if since is None or (datetime.now(UTC) - since).total_seconds() < silence_s:
        return None
    if _has_heartbeat(client, str(run.id), silence_s):
        return None
    return f"nothing was heard of it for {silence_s:g} s" + (f" ({process})" if process else "")


def _heartbeats_arrive(client: SyncPrefectClient) -> bool:
    """Return whether this run's own first heartbeat has come to where others' are looked for."""
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < _EVENTS_LIMIT_S:
        if _has_heartbeat(client, str(runtime.flow_run.id), 3600.0):
            return True
        time.sleep(1.0)
    return False


def _has_heartbeat(client: SyncPrefectClient, run_id: str, within_s: float) -> bool:
    wanted = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]),
        occurred=EventOccurredFilter(since=datetime.now(UTC) - timedelta(seconds=within_s)),
    )
    return bool(client.read_events(wanted, limit=1).events)


def _mark(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Set a run and its unfinished tasks to Crashed; a run that ends by itself meanwhile keeps its own state."""
    client.set_flow_run_state(run.id, Crashed(message=f"Housekeeping: {why}"))
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
        ),
        limit=_PAGE,
    )
    for task in tasks:
        client.set_task_run_state(task.id, Crashed(message="Its flow run crashed"))
