"""The command ``nightbeam watch``: tells Prefect's server when a set in an inbox has come completely.

Looks again and again instead of being told by the kernel, which on network file systems knows only of what its own
machine writes.
"""

import os
import time
from pathlib import Path

import click

from engine.errors import NightbeamError, StudyError
from flows.command import EPILOG, clear_errors
from flows.failures import in_words

LANDED = "nightbeam.inbox.landed"


@click.command("watch", epilog=EPILOG)
@click.argument("inbox", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--every", "every_s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, metavar="SECONDS",
    help="How often to look.",
)  # fmt: skip
@clear_errors
def watch(inbox: Path, every_s: float) -> None:
    """Watch an inbox, and tell the Prefect server when a set of files has come completely.

    INBOX is a folder with an inbox.toml (docs/schedules.md). A set is complete when nothing has changed in it for
    settle_s. The event starts the deployment "scan inbox"; nothing is imported or planned here. Runs until it is ended.
    PREFECT_API_URL and PREFECT_API_AUTH_STRING say which server.
    """
    from flows.inbox_sets import read_inbox

    if not os.environ.get("PREFECT_API_URL"):
        raise StudyError("watch needs a Prefect server that runs: set PREFECT_API_URL (docs/schedules.md)")
    inbox = inbox.resolve()
    read_inbox(inbox)
    click.echo(f"watching {inbox}")
    settled = Settling(inbox)
    told: set[str] = set()
    last_words: str | None = None
    while True:
        try:
            new = settled.look() - told
            if new:
                # Counted as told only when the server has taken it.
                tell(inbox, len(new))
                told |= new
                click.echo(f"{len(new)} set{'s' * (len(new) > 1)} of files landed")
            last_words = None
        except (NightbeamError, OSError) as error:
            # An inbox.toml that is being edited, a file server or a Prefect server that is down: it will come back.
            words = in_words(error)
            if words != last_words:
                click.echo(f"nightbeam: {words}; looking again", err=True)
            last_words = words
        time.sleep(every_s)


class Settling:
    """Looks at an inbox, and remembers since when each set has not changed."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._since_s: dict[str, float] = {}

    def look(self) -> set[str]:
        """Return the listings of the sets that have not changed for long enough.

        Raises
        ------
        StudyError
            If ``inbox.toml`` is not as it should be.
        """
        from flows.inbox_sets import find_sets, read_inbox

        spec = read_inbox(self._inbox)
        now_s = time.monotonic()
        listings = [found.listing for found in find_sets(self._inbox, spec)]
        self._since_s = {listing: self._since_s.get(listing, now_s) for listing in listings}
        return {listing for listing, since_s in self._since_s.items() if now_s - since_s >= spec.settle_s}


def tell(inbox: Path, n_set: int) -> None:
    """Send the event, and see that the server takes it: events sent by the way get lost without a word.

    Raises
    ------
    NightbeamError
        If the server does not answer, or does not take it.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events import Event

    event = Event(
        event=LANDED,
        resource={"prefect.resource.id": f"nightbeam.inbox.{inbox}", "prefect.resource.name": inbox.name},
        payload={"inbox": str(inbox), "n_set": n_set},
    )
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
    except httpx.HTTPError as error:
        raise NightbeamError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']} did not take the event ({error}); see that it "
            "runs, and that PREFECT_API_AUTH_STRING is its password"
        ) from error
