"""Stage optimise with scenario generation: rounds of solves over few scenarios, and looks at their plans in all others.

Every solve and every look is kept in the store under what it was made from, and each round follows from those before
it. So a run that was killed finds its rounds again, and goes on in the middle of the one it was in.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.model.arrays import F64
from engine.model.scenario import Scenario
from engine.optimise.generation import Round, Subproblem, generate
from engine.optimise.subsets import Whole, asked_terms, scenario_values
from engine.spec.study import Study
from engine.units import PERCENT
from flows.references import Influence, Placement, Solve
from flows.run import Run
from flows.solving import (
    SOLVE_CODE,
    OptimiserInput,
    ResidentTiles,
    find_weights,
    most_evaluations,
    solver_options,
)
from flows.work.plan_sums import SCENARIO_SUMS, SumsTask, compute
from storage.digest import digest_of, digest_of_array, digest_of_code


def generate_weights(
    run: Run, study: Study, placement: Placement, influence: Influence, prepared: OptimiserInput
) -> Solve:
    """Find the weights of all beamlets, with the tiles of as few scenarios in memory as are needed."""
    scenarios, cpu_s = influence.scenarios, [0.0]
    whole = Whole(
        study.optimisation.robust,
        study.optimisation.part,
        prepared.terms,
        prepared.constraints,
        np.array([scenario.probability for scenario in scenarios]),
    )

    def solve_over(number: int, asked: Subproblem, start_from: Solve | None) -> Solve:
        some = of_scenarios(prepared, asked.held)
        tiles = ResidentTiles(run, some, placement.first_beamlet[-1])
        n_most = None if prepared.constraints else most_evaluations(asked.options, prepared.terms)
        weighted = [
            replace(scenarios[held], probability=float(p))
            for held, p in zip(asked.held, asked.probability, strict=True)
        ]
        with run.reporter.stage(f"solve {number}", n_most, "evaluations") as steps:
            solved = find_weights(
                run, tiles, some, prepared.terms, asked.form, weighted, asked.options, study.prescription.dose_gy,
                start_from, shared_steps=steps, part=asked.part, stages=asked.stages,
            )  # fmt: skip
        # What comes next shall have their memory.
        tiles.close()
        cpu_s.append(solved.cpu_s)
        return solved

    def view(number: int, weight: F64, others: tuple[int, ...]) -> F64:
        values, spent_s = values_in(run, prepared, scenarios, weight, others, f"look {number}")
        cpu_s.append(spent_s)
        return values

    found = generate(
        whole, solver_options(study), solve_over, view,
        lambda number, told: run.reporter.say(f"  round {number}: {round_in_words(told, scenarios)}"),
    )  # fmt: skip
    run.reporter.say(
        f"  matrices of {len(found.generation.built)} of {len(scenarios)} scenarios were built; it ended because "
        f"{found.generation.reason}"
    )
    return Solve(
        found.solved.digest,
        found.result,
        found.solved.terms,
        sum(cpu_s),
        found.certificate,
        found.limits,
        found.generation,
    )


def of_scenarios(prepared: OptimiserInput, held: Sequence[int]) -> OptimiserInput:
    """Return the same with the tiles of some scenarios alone: groups are cut alike, so no bit depends on how many."""
    groups, n_all = prepared.groups, len(prepared.groups.scenarios)
    some = tuple(groups.scenarios[number] for number in held)
    work = tuple(n_mini * len(held) // n_all for n_mini in prepared.work)
    return replace(prepared, groups=replace(groups, scenarios=some), work=work)


def values_in(
    run: Run,
    prepared: OptimiserInput,
    scenarios: Sequence[Scenario],
    weight: F64,
    others: Sequence[int],
    name: str,
) -> tuple[F64, float]:
    """Return the values of all objectives and constraints of a plan in some scenarios whose tiles nobody keeps.

    Also the CPU seconds that it took, whenever that was.

    Parameters
    ----------
    run, prepared, scenarios
        The run, what is optimised, and all scenarios.
    weight
        Weights of all beamlets, shape (n_beamlet,).
    others
        Numbers of the scenarios.
    name
        Name of the stage for people.
    """
    asked = asked_terms(prepared.terms, prepared.constraints)
    groups = prepared.groups
    made_from = {
        # A view does not know what is made of it: threshold and kernel are in the names of the nominal tiles.
        "nominal": groups.scenarios[0].digests,
        "regions": prepared.regions_digest,
        "groups": [list(group) for group in groups.bricks],
        "asked": [[term.region, term.function.model_dump()] for term in asked],
        "weight": digest_of_array(weight),
        "code": digest_of_code((*SOLVE_CODE, "flows.work.plan_sums")),
    }
    digests = {
        number: digest_of(
            {
                **made_from,
                "tiles": groups.scenarios[number].digests,
                "density_factor": scenarios[number].density_factor,
            }
        )
        for number in others
    }
    missing = tuple(number for number in others if not run.store.has_arrays(SCENARIO_SUMS, digests[number]))
    with run.reporter.stage(name, len(others), "scenarios") as steps:
        steps.found(len(others) - len(missing))
        if missing:
            from cluster.submit import run_tasks

            task = SumsTask(groups, missing, tuple(digests[number] for number in missing), asked, weight)
            run_tasks(run.client, compute, [task], lambda _: steps.advance(1), ends=run.ends)
    stored = [run.store.read_arrays(SCENARIO_SUMS, digests[number]) for number in others]
    values = np.stack([scenario_values(asked, arrays["sums"]) for arrays, _ in stored], axis=1)
    return values, sum(float(attributes["provenance"]["cpu_s"]) for _, attributes in stored)


def round_in_words(told: Round, scenarios: Sequence[Scenario]) -> str:
    """Return what a round came to."""
    names = ", ".join(f"'{scenarios[number].name}'" for number in told.added)
    held = f"{len(told.held)} of {len(scenarios)} scenarios" + (f", new {names}" if told.added else "")
    text = (
        f"{held}; {told.n_evaluation} evaluations; objective over all {told.value:.6g}, most of it in "
        f"'{scenarios[told.worst].name}'"
    )
    if told.lower_bound is None or told.value <= 0.0:
        return text
    gap = max(0.0, 1.0 - told.lower_bound / told.value)
    return f"{text}; no plan is below {told.lower_bound:.6g}, which is {PERCENT * gap:.3g} % less"
