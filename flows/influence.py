"""Stages dose and keep: the nominal scenario's tiles and the others' views; workers compute what is missing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.model.scenario import Scenario
from flows.references import Influence, Placement
from flows.run import Run
from flows.work.matrix import (
    VIEW,
    BlockRecord,
    BlockTask,
    Record,
    Shift,
    ViewRecord,
    ViewTask,
    compute,
    record_of_block,
    record_of_view,
)
from storage.digest import digest_of, digest_of_array, digest_of_code
from storage.influence import KIND as INFLUENCE

MANIFEST = "manifest"
_DOSE_CODE = (
    "engine.dose", "engine.geometry", "engine.physics.photon_kernel", "engine.model", "engine._jit", "engine._vector",
)  # fmt: skip


def compute_influence(
    run: Run, placement: Placement, scenarios: Sequence[Scenario], shifted: bool = False
) -> Influence:
    """Have workers compute the nominal tiles and the views of other scenarios that the store lacks.

    With ``shifted`` the nominal dose is moved for setup errors: these have no views.
    """
    block_digests = [digests_of_blocks(placement, number) for number in range(len(placement.beams))]
    seen = [scenario for scenario in scenarios[1:] if not (shifted and scenario.is_setup_error)]
    shifts = list(dict.fromkeys(scenario.shift_mm for scenario in seen))
    view_digests = {
        shift: [digest_of(view_made_from(placement, number, shift)) for number in range(len(placement.beams))]
        for shift in shifts
    }
    records = _known_records(run, [*block_digests, *view_digests.values()])
    # One task for each beam: workers are given pieces of it that last some seconds.
    tasks: list[BlockTask | ViewTask] = []
    for number, digests in enumerate(block_digests):
        missing = tuple(block for block, digest in enumerate(digests) if digest not in records)
        tasks.append(
            BlockTask(
                placement.optimiser, placement.engine, placement.beams[number], placement.beamlets[number],
                missing, tuple(digests[block] for block in missing), tiles_made_from(placement, number),
            )
        )  # fmt: skip
    for number in range(len(placement.beams)):
        unseen = tuple(shift for shift in shifts if view_digests[shift][number] not in records)
        tasks.append(
            ViewTask(
                placement.optimiser, placement.engine, placement.beams[number], placement.beamlets[number],
                unseen, tuple(view_digests[shift][number] for shift in unseen),
                tuple(view_made_from(placement, number, shift) for shift in unseen),
            )
        )  # fmt: skip
    tasks = [task for task in tasks if task.n_part]
    n_part = sum(len(digests) for digests in (*block_digests, *view_digests.values()))
    with run.reporter.stage("dose", n_part, "blocks and views") as steps:
        steps.found(len(records))
        if tasks:
            from cluster.submit import run_tasks

            for made in run_tasks(run.client, compute, tasks, lambda _: steps.advance(1), ends=run.ends):
                records.update({record.digest: record for record in made})
    for digests in (*block_digests, *view_digests.values()):
        _keep_manifest(run, digests, records)
    blocks = [
        (placement.first_beamlet[number] + int(begin), records[digest])
        for number, digests in enumerate(block_digests)
        for begin, digest in zip(placement.beamlets[number].block_begin[:-1], digests, strict=True)
    ]
    return Influence(
        tuple(scenarios),
        tuple((begin, record) for begin, record in blocks if isinstance(record, BlockRecord)),
        tuple(tuple(view_digests[s.shift_mm]) if s in seen else () for s in scenarios[1:]),
        sum(record.cpu_s for record in records.values()),
    )


def tiles_made_from(placement: Placement, number: int) -> dict[str, Any]:
    """Return everything that the blocks of one beam are made from, in the nominal scenario."""
    beamlets, engine = placement.beamlets[number], placement.engine
    return {
        **view_made_from(placement, number, (0.0, 0.0, 0.0)),
        "threshold_fraction": engine.threshold_fraction,
        "kernel": [
            digest_of_array(engine.kernel.weight_gy_mm2), digest_of_array(engine.kernel.sigma_mm),
            digest_of_array(engine.kernel.depth_mm),
        ],
        "source_sigma_mm": engine.machine.source_sigma_mm,
        "block_begin": digest_of_array(beamlets.block_begin),
    }  # fmt: skip


def view_made_from(placement: Placement, number: int, shift_mm: Shift) -> dict[str, Any]:
    """Return everything that the view of one beam is made from, near its beamlets, in one setup."""
    beam, beamlets, engine = placement.beams[number], placement.beamlets[number], placement.engine
    layout = placement.optimiser.layout
    return {
        "engine": [engine.name, engine.version, engine.lateral_cutoff_mm],
        "machine": [engine.machine.sad_mm, engine.machine.collimator_distance_mm],
        "code": digest_of_code(_DOSE_CODE),
        "density": placement.optimiser.density,
        "grid": layout.grid.as_dict(),
        "brick_edge": layout.edge,
        "beam": [
            beam.gantry_deg, beam.couch_deg, beam.collimator_deg, [float(v) for v in beam.isocentre_mm], beam.sad_mm
        ],
        "beamlets": [list(beamlets.size_mm), digest_of_array(beamlets.column), digest_of_array(beamlets.row)],
        "shift_mm": list(shift_mm),
    }  # fmt: skip


def digests_of_blocks(placement: Placement, number: int) -> list[str]:
    """Return the digest of every block of one beam."""
    made_from = tiles_made_from(placement, number)
    return [digest_of({**made_from, "block": block}) for block in range(placement.beamlets[number].n_block)]


def _known_records(run: Run, lists: Sequence[Sequence[str]]) -> dict[str, Record]:
    """Return the records of all blocks and views of some lists that are in the store."""
    records: dict[str, Record] = {}
    for digests in lists:
        manifest = digest_of(list(digests))
        listed: dict[str, Record] = {}
        if run.store.has_record(MANIFEST, manifest):
            for values in run.store.read_record(MANIFEST, manifest):
                record = _record_of(values)
                listed[record.digest] = record
        for digest in digests:
            if run.store.has_arrays(INFLUENCE, digest):
                # A block that is not listed: the run was killed between its blocks and its manifest.
                records[digest] = listed.get(digest) or record_of_block(run.store, digest)
            elif run.store.has_arrays(VIEW, digest):
                records[digest] = listed.get(digest) or record_of_view(run.store, digest)
    return records


def _record_of(values: dict[str, Any]) -> Record:
    if "brick" not in values:
        return ViewRecord(values["digest"], float(values["cpu_s"]))
    return BlockRecord(
        values["digest"],
        tuple(values["brick"]),
        tuple(values["n_mini"]),
        int(values["n_entry"]),
        float(values["cpu_s"]),
    )


def _keep_manifest(run: Run, digests: Sequence[str], records: dict[str, Record]) -> None:
    manifest = digest_of(list(digests))
    if not run.store.has_record(MANIFEST, manifest):
        run.store.write_record(MANIFEST, manifest, [asdict(records[digest]) for digest in digests])
