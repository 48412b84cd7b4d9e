"""Stages dose and keep: find the influence tiles in the store, have workers compute those that are missing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.model.scenario import Scenario
from flows.references import Influence, Placement
from flows.run import Run
from flows.work import BlockRecord, DoseTask, compute_blocks, record_of_block
from storage.digest import digest_of, digest_of_array, digest_of_code
from storage.influence import KIND as INFLUENCE

MANIFEST = "manifest"
_DOSE_CODE = ("engine.dose", "engine.geometry", "engine.physics.photon_kernel", "engine.model", "engine._jit")
_BLOCKS_PER_TASK = 12
"""Blocks of one task: some seconds of work at clinical sizes, and a bounded scratch memory."""


def compute_influence(run: Run, placement: Placement, scenarios: Sequence[Scenario]) -> Influence:
    """Have workers compute the influence tiles that the store lacks; they publish them, block by block."""
    digests = [
        [block_digests(placement, number, scenario) for number in range(len(placement.beams))]
        for scenario in scenarios
    ]
    tasks, records = [], dict[str, BlockRecord]()
    for scenario, of_beams in zip(scenarios, digests, strict=True):
        for number, of_blocks in enumerate(of_beams):
            missing = _find_blocks(run, of_blocks, records)
            for begin in range(0, len(missing), _BLOCKS_PER_TASK):
                blocks = tuple(missing[begin : begin + _BLOCKS_PER_TASK])
                tasks.append(
                    DoseTask(
                        placement.optimiser,
                        placement.engine,
                        placement.beams[number],
                        placement.beamlets[number],
                        scenario,
                        blocks,
                        tuple(of_blocks[block] for block in blocks),
                        block_made_from(placement, number, scenario),
                    )
                )
    n_block = sum(len(of_blocks) for of_beams in digests for of_blocks in of_beams)
    with run.reporter.stage("dose", n_block, "blocks") as steps:
        steps.found(len(records))
        if tasks:
            from cluster.submit import run_tasks

            for made in run_tasks(
                run.client, compute_blocks, tasks, lambda number: steps.advance(len(tasks[number].blocks))
            ):
                records.update({record.digest: record for record in made})
    blocks_by_scenario = []
    for of_beams in digests:
        blocks_of_scenario = []
        for number, of_blocks in enumerate(of_beams):
            _keep_manifest(run, of_blocks, records)
            for block, digest in enumerate(of_blocks):
                begin = placement.first_beamlet[number] + int(placement.beamlets[number].block_begin[block])
                blocks_of_scenario.append((begin, records[digest]))
        blocks_by_scenario.append(tuple(blocks_of_scenario))
    return Influence(tuple(scenarios), tuple(blocks_by_scenario))


def block_made_from(placement: Placement, number: int, scenario: Scenario) -> dict[str, Any]:
    """Return everything that the blocks of one beam in one scenario are made from."""
    beam, beamlets, engine = placement.beams[number], placement.beamlets[number], placement.engine
    layout = placement.optimiser.layout
    return {
        "engine": [engine.name, engine.version, engine.lateral_cutoff_mm, engine.threshold_fraction],
        "machine": [
            engine.machine.sad_mm, engine.machine.collimator_distance_mm, engine.machine.source_sigma_mm,
            digest_of_array(engine.kernel.weight_gy_mm2), digest_of_array(engine.kernel.sigma_mm),
            digest_of_array(engine.kernel.depth_mm),
        ],
        "code": digest_of_code(_DOSE_CODE),
        "density": placement.optimiser.density,
        "grid": layout.grid.as_dict(),
        "brick_edge": layout.edge,
        "beam": [
            beam.gantry_deg, beam.couch_deg, beam.collimator_deg, [float(v) for v in beam.isocentre_mm], beam.sad_mm
        ],
        "beamlets": [
            list(beamlets.size_mm), digest_of_array(beamlets.column), digest_of_array(beamlets.row),
            digest_of_array(beamlets.block_begin),
        ],
        "scenario": [list(scenario.shift_mm), scenario.density_factor],
    }  # fmt: skip


def block_digests(placement: Placement, number: int, scenario: Scenario) -> list[str]:
    """Return the digest of every block of one beam in one scenario."""
    made_from = block_made_from(placement, number, scenario)
    return [digest_of({**made_from, "block": block}) for block in range(placement.beamlets[number].n_block)]


def _find_blocks(run: Run, digests: Sequence[str], records: dict[str, BlockRecord]) -> list[int]:
    """Put the records of stored blocks into ``records``; return the numbers of the blocks that are missing."""
    missing = [block for block, digest in enumerate(digests) if not run.store.has_arrays(INFLUENCE, digest)]
    manifest = digest_of(list(digests))
    known: dict[str, Any] = {}
    if run.store.has_record(MANIFEST, manifest):
        known = {values["digest"]: values for values in run.store.read_record(MANIFEST, manifest)}
    for block, digest in enumerate(digests):
        if block in missing:
            continue
        if digest in known:
            values = known[digest]
            records[digest] = BlockRecord(
                digest,
                tuple(values["brick"]),
                tuple(values["n_mini"]),
                int(values["n_entry"]),
                float(values["cpu_s"]),
            )
        else:
            # A run was killed between its blocks and its manifest.
            records[digest] = record_of_block(run.store, digest)
    return missing


def _keep_manifest(run: Run, digests: Sequence[str], records: dict[str, BlockRecord]) -> None:
    manifest = digest_of(list(digests))
    if not run.store.has_record(MANIFEST, manifest):
        run.store.write_record(MANIFEST, manifest, [asdict(records[digest]) for digest in digests])
