"""Work of the optimise stage: what a plan comes to in scenarios whose tiles nobody keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.model.arrays import F64
from engine.optimise.group import Term
from engine.optimise.subsets import scenario_sums
from flows.work.cpu import cpu_clock_s
from flows.work.rows import StoredGroups
from storage.digest import provenance
from storage.store import Store

SCENARIO_SUMS = "scenario_sums"


@dataclass(frozen=True)
class SumsTask:
    """Sums of all terms of a plan in some scenarios: a `cluster.pieces.Divisible`.

    The rows of a scenario are made group by group, as an optimisation's are, and let go of when their sums are there.

    Parameters
    ----------
    groups
        Loader of the reduction groups in all scenarios.
    scenarios, digests
        Numbers of the scenarios, and what their sums are to be published under.
    terms
        What is asked.
    weight
        Weights of all beamlets.
    """

    groups: StoredGroups
    scenarios: tuple[int, ...]
    digests: tuple[str, ...]
    terms: tuple[Term, ...]
    weight: F64

    n_at_once = 1

    def __str__(self) -> str:
        return f"a plan in {len(self.scenarios)} scenarios"

    @property
    def n_part(self) -> int:
        """How many scenarios they are."""
        return len(self.scenarios)

    def piece(self, begin: int, end: int) -> "SumsTask":
        """Return a task of some of the scenarios."""
        return replace(self, scenarios=self.scenarios[begin:end], digests=self.digests[begin:end])

    def compute(self) -> list[str]:
        """Compute and publish the sums that nobody has published in the meantime; returns the digests of all."""
        store = Store(self.groups.store)
        for scenario, digest in zip(self.scenarios, self.digests, strict=True):
            if not store.has_arrays(SCENARIO_SUMS, digest):
                begin_s = cpu_clock_s()
                sums = scenario_sums(self.groups.of_scenario(scenario), self.terms, self.weight)
                store.write_arrays(
                    SCENARIO_SUMS,
                    digest,
                    {"sums": sums},
                    {"provenance": provenance({}, cpu_clock_s() - begin_s)},
                )
        return list(self.digests)


def compute(task: SumsTask) -> Sequence[str]:
    """Do a task: what is sent to workers."""
    return task.compute()
