"""A small problem whose tiles are in a store, for workers to load."""

from dataclasses import replace

import pytest

from engine.geometry.bricks import BrickLayout
from engine.model.grid import Grid
from flows.work.rows import REGIONS, MovedNominal, StoredGroups, StoredTiles
from storage.influence import write_tiles
from storage.store import Store
from tests.dense_tiles import small_problem

EDGE, N_BRICK = 4, 8


@pytest.fixture(scope="module")
def small():
    return small_problem(seed=9, n_group=4, block_sizes=(5, 7, 3), n_brick=N_BRICK)


@pytest.fixture(scope="module")
def groups(small, tmp_path_factory):
    """Return the loader that studies use, for a store with the tiles of the small problem."""
    store = Store(tmp_path_factory.mktemp("resident") / "store")
    scenarios = []
    for s, columns in enumerate(small.columns):
        for b, (_, column) in enumerate(columns):
            write_tiles(store, f"{s:016x}{b:016x}", column, {})
        blocks = tuple((first, f"{s:016x}{b:016x}") for b, (first, _) in enumerate(columns))
        scenarios.append(StoredTiles(blocks))
    store.write_arrays(REGIONS, "ab" * 16, {f"share_{n}": share for n, share in enumerate(small.shares)}, {})
    layout = BrickLayout(Grid((0.0, 0.0, 0.0), (3.0, 3.0, 3.0), (EDGE, EDGE, EDGE * N_BRICK)), EDGE)
    assert (layout.n_brick, layout.brick_size) == (N_BRICK, small.brick_size)
    return StoredGroups(store.folder, layout, small.bricks, tuple(scenarios), "ab" * 16)


@pytest.fixture(scope="module")
def moved_groups(groups):
    """Return the loader of the same problem with the second scenario's dose moved; the third keeps its own matrix."""
    nominal, _, other = groups.scenarios
    return replace(groups, scenarios=(nominal, MovedNominal(nominal, (-7.0, 1.0, 2.5)), other))
