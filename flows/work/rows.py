"""Work of the optimise stage: the rows of some bricks, from stored tiles, or filled in from stored views."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.dose.engine import DoseEngine
from engine.geometry.bricks import BrickLayout
from engine.influence.halo import Halo, Stencil, halo_of, stencils_of
from engine.influence.rows import RowGroup, rows_of_columns, rows_of_tiles, rows_within
from engine.influence.scenarios import MovedDose, OwnMatrices, ScenarioRows
from engine.model.arrays import F32, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import PatientPosition
from engine.model.scenario import Scenario
from engine.optimise.group import GroupEvaluator, regions_of_group
from flows.work.matrix import BLOCKS_AT_ONCE, VIEW, Shift
from storage.influence import read_tiles
from storage.places.address import Address
from storage.store import Store

REGIONS = "regions"
Bricks = tuple[int, int]
"""First brick and number of bricks."""


class TileSource(Protocol):
    """Where the tiles of one scenario come from."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of all objects that they come from."""
        ...

    def rows(self, store: Store, layout: BrickLayout, groups: Sequence[Bricks]) -> list[RowGroup]:
        """Return the rows of some consecutive groups of bricks."""
        ...


@dataclass(frozen=True)
class StoredTiles:
    """Tiles that are kept: the number of each block's first beamlet and the block's digest, in beamlet order."""

    blocks: tuple[tuple[int, str], ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(digest for _, digest in self.blocks)

    def rows(self, store: Store, layout: BrickLayout, groups: Sequence[Bricks]) -> list[RowGroup]:
        """Read them."""
        bricks = (groups[0][0], sum(groups[-1]) - groups[0][0])
        columns = [(begin, read_tiles(store, digest, bricks)) for begin, digest in self.blocks]
        return [rows_of_columns(columns, *group, layout.brick_size) for group in groups]

    def rows_held(self, store: Store, layout: BrickLayout, halos: Sequence[Halo]) -> list[RowGroup]:
        """Read what some groups hold of them."""
        held = [halo.bricks for halo in halos if halo.bricks.size]
        first = min((int(bricks[0]) for bricks in held), default=0)
        last = max((int(bricks[-1]) for bricks in held), default=0)
        columns = [
            (begin, read_tiles(store, digest, (first, last - first + 1))) for begin, digest in self.blocks
        ]
        return [rows_within(columns, halo.bricks, halo.keep, layout.brick_size) for halo in halos]


@dataclass(frozen=True)
class MovedNominal:
    """No tiles of its own: the dose of the nominal ones, the patient being displaced against it."""

    nominal: StoredTiles
    shift_mm: Shift

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the nominal blocks, and the displacement."""
        x, y, z = self.shift_mm
        return (*self.nominal.digests, f"patient moved by {x!r}, {y!r}, {z!r} mm")


@dataclass(frozen=True)
class TilesOfViews:
    """Tiles that are filled in from views of all beams in one scenario.

    Parameters
    ----------
    engine
        The dose engine.
    beams, beamlets, views
        Every beam, its beamlets and the digest of its view.
    scenario
        The scenario.
    position
        How the patient lies.
    """

    engine: DoseEngine
    beams: tuple[Beam, ...]
    beamlets: tuple[BeamletGrid, ...]
    views: tuple[str, ...]
    scenario: Scenario
    position: PatientPosition

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the views."""
        return self.views

    def rows(self, store: Store, layout: BrickLayout, groups: Sequence[Bricks]) -> list[RowGroup]:
        """Fill them in."""
        return list(self.one_by_one(store, layout, groups))

    def one_by_one(self, store: Store, layout: BrickLayout, groups: Sequence[Bricks]) -> Iterator[RowGroup]:
        """Yield the rows of some groups, filled in when they are asked for; views are read once."""
        kept = [store.read_arrays(VIEW, digest)[0] for digest in self.views]
        for group in groups:
            yield self._rows_of_group(kept, layout, group)

    def _rows_of_group(
        self, kept: Sequence[Mapping[str, npt.NDArray[Any]]], layout: BrickLayout, group: Bricks
    ) -> RowGroup:
        tiles, first = [], 0
        for arrays, beam, beamlets in zip(kept, self.beams, self.beamlets, strict=True):
            view = self.engine.view_of_arrays(
                arrays, layout, beam, self.scenario.shift_mm, self.position, group
            )
            for begin in range(0, beamlets.n_block, BLOCKS_AT_ONCE):
                blocks = range(begin, min(begin + BLOCKS_AT_ONCE, beamlets.n_block))
                found = self.engine.tiles(view, beamlets, blocks, self.scenario.density_factor)
                tiles.append((first + int(beamlets.block_begin[begin]), list(found)))
            first += beamlets.n_beamlet
        return rows_of_tiles(tiles, *group, layout.brick_size)


@dataclass(frozen=True)
class StoredGroups:
    """Loads reduction groups: the `cluster.rows_actor.GroupLoader` of every study.

    Parameters
    ----------
    store
        Where the store is.
    layout
        Row numbering.
    bricks
        The bricks of every group.
    scenarios
        Where each scenario's tiles come from, the nominal one's first.
    regions
        Digest of the regions' relative volumes.
    """

    store: Address
    layout: BrickLayout
    bricks: tuple[Bricks, ...]
    scenarios: tuple[TileSource | MovedNominal, ...]
    regions: str

    def __call__(self, groups: Sequence[int]) -> list[GroupEvaluator]:
        """Return evaluators of some consecutive groups."""
        store = Store(self.store)
        size = self.layout.brick_size
        bricks = [self.bricks[group] for group in groups]
        arrays, _ = store.read_arrays(REGIONS, self.regions)
        shares, references_gy = _shares_and_references(arrays)
        moved = [source for source in self.scenarios if isinstance(source, MovedNominal)]
        rows: Sequence[ScenarioRows] = (
            self._moved(store, bricks, rows_in_regions(arrays), moved) if moved else self._own(store, bricks)
        )
        return [
            GroupEvaluator(of_group, regions_of_group(shares, first * size, n * size, references_gy))
            for of_group, (first, n) in zip(rows, bricks, strict=True)
        ]

    def _own(self, store: Store, bricks: Sequence[Bricks]) -> list[OwnMatrices]:
        """Return rows with a matrix for every scenario."""
        sources = [source for source in self.scenarios if not isinstance(source, MovedNominal)]
        by_scenario = [source.rows(store, self.layout, bricks) for source in sources]
        return [OwnMatrices(matrices) for matrices in zip(*by_scenario, strict=True)]

    def _moved(
        self, store: Store, bricks: Sequence[Bricks], wanted: Bool, moved: Sequence[MovedNominal]
    ) -> list[MovedDose]:
        """Return rows with the nominal matrix on and around them, and matrices of scenarios that are no mere shift."""
        layout, size = self.layout, self.layout.brick_size
        at_rest, *displaced = stencils_of(layout, [source.shift_mm for source in moved])
        halos = []
        for first, n in bricks:
            row = np.flatnonzero(wanted[first * size : (first + n) * size])
            halos.append(halo_of(layout, first * size, row, [at_rest, *displaced]))
        held = moved[0].nominal.rows_held(store, layout, halos)
        ways: list[list[Stencil | RowGroup]] = [[at_rest] for _ in bricks]
        stencils = iter(displaced)
        for source in self.scenarios[1:]:
            of_groups: Sequence[Stencil | RowGroup] = (
                [next(stencils)] * len(bricks)
                if isinstance(source, MovedNominal)
                else source.rows(store, layout, bricks)
            )
            for of_group, way in zip(of_groups, ways, strict=True):
                way.append(of_group)
        return [
            MovedDose(n * size, nominal, halo, tuple(way))
            for (_, n), nominal, halo, way in zip(bricks, held, halos, ways, strict=True)
        ]

    def of_scenario(self, number: int) -> Iterator[GroupEvaluator]:
        """Yield evaluators of all groups in one scenario alone, each made when it is asked for."""
        store, source, size = Store(self.store), self.scenarios[number], self.layout.brick_size
        if isinstance(source, MovedNominal):
            raise ValueError(
                f"scenario {number} has no matrix of its own (its dose is the nominal one, moved)"
            )
        arrays, _ = store.read_arrays(REGIONS, self.regions)
        shares, references_gy = _shares_and_references(arrays)
        for rows, (first, n) in zip(
            _one_by_one(source, store, self.layout, self.bricks), self.bricks, strict=True
        ):
            yield GroupEvaluator([rows], regions_of_group(shares, first * size, n * size, references_gy))


def _one_by_one(
    source: TileSource, store: Store, layout: BrickLayout, groups: Sequence[Bricks]
) -> Iterator[RowGroup]:
    """Yield the rows of some groups, no more than one of which has to be in memory at a time."""
    if isinstance(source, TilesOfViews):
        yield from source.one_by_one(store, layout, groups)
    else:
        for group in groups:
            yield from source.rows(store, layout, [group])


def _shares_and_references(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[list[F32], dict[int, F32]]:
    """Return the relative volumes of all regions, and the reference doses of those that have them, as stored."""
    references_gy = {
        int(name.removeprefix("reference_")): values
        for name, values in arrays.items()
        if name.startswith("reference_")
    }
    return [arrays[f"share_{number}"] for number in range(len(arrays) - len(references_gy))], references_gy


def rows_in_regions(arrays: Mapping[str, npt.NDArray[Any]]) -> Bool:
    """Return which rows are in any of some stored regions, shape (n_row,)."""
    shares, _ = _shares_and_references(arrays)
    wanted: Bool = np.any([share > 0.0 for share in shares], axis=0)
    return wanted
