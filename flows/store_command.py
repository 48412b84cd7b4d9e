"""The command ``nightbeam store``, for whoever looks after a store."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from flows.command import EPILOG, STORE, clear_errors
from storage.places.address import Address

if TYPE_CHECKING:
    from storage.maintenance import Finding, StoredFile
    from storage.store import Store

_DAY_S = 86400.0
_GB = 1e9
_SHOWN = 100
_QUIET = click.option("--quiet", is_flag=True, help="Show no progress, and print only what is wrong.")


@click.group(epilog=EPILOG)
def store() -> None:
    """Look after a store: its size, whether it is whole, and what may go.

    A store only grows, until somebody prunes it. Before the disk is full:

    \b
      nightbeam store size  --store runs/store
      nightbeam store prune --store runs/store --older-than 90 --to-size 200 --dry-run

    After a disk has failed, or a machine has crashed:

    \b
      nightbeam store check  --store runs/store
      nightbeam store repair --store runs/store

    All may be run while plans are being made.
    """


@store.command(epilog=EPILOG)
@STORE
@clear_errors
def size(store: Address) -> None:
    """Tell how much there is of what, and since when it was not used.

    \b
      nightbeam store size --store runs/store

    Results: case and density (patients), influence (dose of beamlets; most of a store), view (what beams see in
    other scenarios), regions, solve and scenario_sums (optimisations), beam_dose (final doses). The rest: files
    being written, damaged ones that were put out of the way, logs of solves that are not finished, leases of runs,
    and Prefect's own files, which nightbeam leaves alone.
    """
    from storage.maintenance import LEASES, LEFTOVERS, PREFECT, list_folder, list_objects, n_byte_of_store

    found = _existing(store)
    objects = list_objects(found)
    _echo_table(objects)
    others = [file for folder in (*LEFTOVERS, LEASES, PREFECT) for file in list_folder(found, folder)]
    if others:
        click.echo()
        _echo_table(others)
    click.echo(f"\ntotal {_size(n_byte_of_store(found))} in {found.address}")
    if objects:
        click.echo(f"oldest last use of a result: {_day(min(file.used_s for file in objects))}")


@store.command(epilog=EPILOG)
@STORE
@_QUIET
@clear_errors
def check(store: Address, quiet: bool) -> None:
    """Read every result completely, and list those that are damaged.

    \b
      nightbeam store check --store runs/store || nightbeam store repair --store runs/store

    Leaves with status 0 if the store is whole, 1 if something is damaged, 2 if something could not be read. A run
    that meets a damaged result makes it again by itself; checking finds it before the night.
    """
    damaged, unreadable = _check(_existing(store), quiet)
    _echo_findings(damaged, "damaged")
    _leave_if_unreadable(unreadable)
    if damaged:
        click.echo("`nightbeam store repair` puts them out of the way; the next run makes them again")
        sys.exit(1)
    if not quiet:
        click.echo("the store is whole")


@store.command(epilog=EPILOG)
@STORE
@_QUIET
@clear_errors
def repair(store: Address, quiet: bool) -> None:
    """Check the store, put damaged results out of the way, and remove what killed runs left half written.

    \b
      nightbeam store repair --store runs/store

    The next run makes what is missing again. Damaged files are kept in the store's folder `damaged` for whoever wants
    to look at them, until they are pruned. Cases that were imported under a name have to be imported again: their
    names are told.
    """
    from storage.maintenance import clear_aside, put_away

    found = _existing(store)
    names = _names_by_case(found)
    damaged, unreadable = _check(found, quiet)
    done = put_away(found, damaged)
    _echo_findings(done, "damaged, put out of the way")
    for name in _names_lost(done, names):
        click.echo(
            f"case '{name}' cannot be made again from the store; "
            f"bring it in with `nightbeam import SOURCE --name {name}`"
        )
    left = clear_aside(found)
    if left:
        click.echo(f"{len(left)} half-written files removed ({_size(sum(file.n_byte for file in left))})")
    _leave_if_unreadable(unreadable)
    if not quiet:
        click.echo("the store is whole; what is missing is made again by the next run that needs it")


@store.command(epilog=EPILOG)
@STORE
@click.option(
    "--older-than", "older_than_days", type=click.FloatRange(min=0.0), metavar="DAYS",
    help="Delete what was not used for so many days.",
)  # fmt: skip
@click.option(
    "--to-size", "to_gb", type=click.FloatRange(min=0.0), metavar="GB",
    help="Then delete what was not used for longest, until the store is no larger than this (10^9 bytes).",
)  # fmt: skip
@click.option(
    "--cases", is_flag=True, help="Delete cases, too. Those that were imported have to be imported again."
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted.")
@clear_errors
def prune(
    store: Address, older_than_days: float | None, to_gb: float | None, cases: bool, dry_run: bool
) -> None:
    """Delete results that were not used for long, and what was left over.

    \b
      nightbeam store prune --store runs/store --older-than 90
      nightbeam store prune --store runs/store --to-size 200 --dry-run

    A result is used whenever a run looks it up. While runs are live, nothing that they have used is deleted, and no
    log of an unfinished solve. A study that is planned again makes what was deleted again, with the same numbers.
    """
    from flows.cases import IMPORT, NAME
    from storage.cases import KIND, REFERENCE
    from storage.imported import KINDS as ATTACHED_KINDS
    from storage.pruning import choose, delete

    if older_than_days is None and to_gb is None:
        raise click.UsageError("say what may go, with --older-than DAYS, --to-size GB, or both")
    found = _existing(store)
    chosen = choose(
        found,
        None if older_than_days is None else older_than_days * _DAY_S,
        None if to_gb is None else to_gb * _GB,
        () if cases else (KIND, REFERENCE, NAME, IMPORT, *ATTACHED_KINDS),
    )
    files = chosen.files if dry_run else delete(found, chosen.files)
    if files:
        _echo_table(files)
        click.echo()
    n_byte_left = chosen.n_byte_left + sum(file.n_byte for file in set(chosen.files) - set(files))
    click.echo(
        f"{len(files)} files, {_size(sum(file.n_byte for file in files))} {'would be ' if dry_run else ''}deleted; "
        f"{_size(n_byte_left)} left"
    )
    n_held = chosen.n_held + len(chosen.files) - len(files)
    if n_held:
        click.echo(f"{n_held} files stay, because live runs use them or may")
    if to_gb is not None and n_byte_left > to_gb * _GB:
        click.echo(
            f"still more than {to_gb:g} GB: what is left is in use, "
            f"{'' if cases else 'a case (--cases deletes those), '}or no result (see `nightbeam store size`)"
        )


def _existing(address: Address) -> "Store":
    from engine.errors import StoreError
    from storage.places.opening import place_at
    from storage.store import MARKER, Store

    if not place_at(address).is_there(MARKER):
        raise StoreError(f"there is no store in {address}; name the right folder with --store")
    return Store(address)


def _check(store: "Store", quiet: bool) -> "tuple[list[Finding], list[Finding]]":
    """Return what is damaged, and what could not be read."""
    from flows.progress import Reporter
    from storage.maintenance import check as check_objects
    from storage.maintenance import list_objects

    files = list_objects(store)
    with Reporter(quiet).stage("check", len(files), "results") as steps:
        findings = check_objects(store, files, steps.advance)
    return [f for f in findings if f.is_damaged], [f for f in findings if not f.is_damaged]


def _leave_if_unreadable(findings: "Sequence[Finding]") -> None:
    if findings:
        _echo_findings(findings, "could not be read")
        click.echo(
            f"nightbeam: {len(findings)} results could not be read, so nothing is known of them; "
            "mend what the messages name, and check again",
            err=True,
        )
        sys.exit(2)


def _echo_findings(findings: "Sequence[Finding]", what: str) -> None:
    for finding in findings[:_SHOWN]:
        click.echo(f"{finding.file.kind} {finding.file.name}: {what} ({finding.why})")
    if len(findings) > _SHOWN:
        click.echo(f"... and {len(findings) - _SHOWN} more")


def _names_by_case(store: "Store") -> dict[str, list[str]]:
    """Return the names that cases were imported under, by digest."""
    from engine.errors import DamagedObjectError
    from flows.cases import NAME

    names = defaultdict(list)
    for name in store.record_names(NAME):
        try:
            names[str(store.read_record(NAME, name)["case"])].append(name)
        except DamagedObjectError:
            # The check finds it, and tells its name.
            continue
    return names


def _names_lost(findings: "Iterable[Finding]", names: dict[str, list[str]]) -> list[str]:
    from flows.cases import NAME
    from storage.cases import KIND, REFERENCE
    from storage.imported import KINDS as ATTACHED_KINDS

    lost = set()
    for finding in findings:
        if finding.file.kind == NAME:
            lost.add(finding.file.name)
        elif finding.file.kind in (KIND, REFERENCE, *ATTACHED_KINDS):
            lost.update(names.get(finding.file.name, ()))
    return sorted(lost)


def _echo_table(files: "Iterable[StoredFile]") -> None:
    """Print number, bytes and oldest last use by kind."""
    by_kind = defaultdict(list)
    for file in files:
        by_kind[file.kind].append(file)
    click.echo(f"{'':16}{'files':>10}{'size':>12}   oldest last use")
    for kind in sorted(by_kind):
        of_kind = by_kind[kind]
        n_byte = sum(file.n_byte for file in of_kind)
        oldest = _day(min(file.used_s for file in of_kind))
        click.echo(f"{kind:16}{len(of_kind):10,}{_size(n_byte):>12}   {oldest}")


def _size(n_byte: int) -> str:
    from rich.filesize import decimal

    return decimal(n_byte)


def _day(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M")
