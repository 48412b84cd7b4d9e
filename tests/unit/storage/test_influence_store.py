"""Influence tiles at rest: whole, by bricks, damaged."""

import itertools
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DamagedObjectError, StoreError
from engine.influence.rows import rows_of_columns
from engine.model.influence import TileColumn
from storage.influence import KIND, read_tiles, write_tiles
from storage.store import Store
from tests.dense_tiles import column_of_dense, columns_of_dense, sparse_dose

BRICK, N_BRICK, N_BEAMLET = 64, 7, 5
DIGEST = "12" * 16
ARRAYS = ("brick", "segment_begin", "scale", "mini", "value")


@pytest.fixture(scope="module")
def column():
    dose_gy = sparse_dose(np.random.default_rng(51), BRICK * N_BRICK, N_BEAMLET)
    # A brick in the middle without tiles.
    dose_gy[3 * BRICK : 4 * BRICK] = 0.0
    return column_of_dense(dose_gy, BRICK)


@pytest.fixture(scope="module")
def store(tmp_path_factory, column):
    store = Store(tmp_path_factory.mktemp("tiles") / "store")
    write_tiles(store, DIGEST, column, {"made_from": "test"})
    return store


def same(a, b):
    return (a.n_beamlet, a.n_entry) == (b.n_beamlet, b.n_entry) and all(
        getattr(a, name).dtype == getattr(b, name).dtype
        and np.array_equal(getattr(a, name), getattr(b, name))
        for name in ARRAYS
    )


def test_tiles_come_back_bit_for_bit(store, column):
    assert same(read_tiles(store, DIGEST), column)


def test_a_block_without_tiles_comes_back(store):
    empty = column_of_dense(np.zeros((BRICK * N_BRICK, N_BEAMLET)), BRICK)
    write_tiles(store, "00" * 16, empty, {})
    assert same(read_tiles(store, "00" * 16), empty)
    assert read_tiles(store, "00" * 16, (2, 3)).brick.size == 0


@given(first=st.integers(0, N_BRICK), n_brick=st.integers(0, N_BRICK))
@settings(max_examples=25)
def test_the_tiles_of_some_bricks_are_a_slice_of_all(store, column, first, n_brick):
    part = read_tiles(store, DIGEST, (first, n_brick))
    wanted = [i for i, brick in enumerate(column.brick) if first <= brick < first + n_brick]
    assert list(part.brick) == [column.brick[i] for i in wanted]
    assert part.segment_begin[0] == 0
    assert part.segment_begin[-1] == part.mini.size == len(part.value)
    for here, there in enumerate(wanted):
        for beamlet in range(N_BEAMLET):
            a, b = here * N_BEAMLET + beamlet, there * N_BEAMLET + beamlet
            mine = slice(part.segment_begin[a], part.segment_begin[a + 1])
            its = slice(column.segment_begin[b], column.segment_begin[b + 1])
            assert part.scale[a] == column.scale[b]
            assert np.array_equal(part.mini[mine], column.mini[its])
            assert np.array_equal(part.value[mine], column.value[its])


@given(cuts=st.sets(st.integers(1, N_BRICK - 1)))
@settings(max_examples=15)
def test_doses_do_not_depend_on_which_bricks_are_read_together(store, column, cuts):
    weight = np.random.default_rng(52).uniform(0.0, 3.0, N_BEAMLET)
    whole = rows_of_columns([(0, column)], 0, N_BRICK, BRICK).dose(weight)
    edges = [0, *sorted(cuts), N_BRICK]
    parts = []
    for a, b in itertools.pairwise(edges):
        # As on a worker: the range that is read is wider than the group that is cut out of it.
        read = read_tiles(store, DIGEST, (max(0, a - 1), b - a + 1))
        parts.append(rows_of_columns([(0, read)], a, b - a, BRICK).dose(weight))
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_gradients_do_not_depend_on_how_blocks_are_read(store):
    dose_gy = sparse_dose(np.random.default_rng(53), BRICK * N_BRICK, 9)
    columns = columns_of_dense(dose_gy, BRICK, (4, 5))
    for number, (_, column) in enumerate(columns):
        write_tiles(store, f"{number:032x}", column, {})
    slope = np.random.default_rng(54).normal(size=2 * BRICK)

    def gradient(bricks):
        read = [(first, read_tiles(store, f"{n:032x}", bricks)) for n, (first, _) in enumerate(columns)]
        result = np.zeros(9)
        rows_of_columns(read, 2, 2, BRICK).add_adjoint(slope, result)
        return result.tobytes()

    assert gradient((2, 2)) == gradient(None) == gradient((0, 5))


def test_a_block_that_is_not_there_is_a_clear_error(store):
    with pytest.raises(StoreError, match=f"{KIND} {'ee' * 16} is missing"):
        read_tiles(store, "ee" * 16)


def test_a_changed_byte_is_never_taken_for_tiles(store, column):
    digest = "34" * 16
    write_tiles(store, digest, column, {})
    path = store.arrays_path(KIND, digest)
    raw = path.read_bytes()
    n_damaged = 0
    positions = range(0, len(raw), 23)
    for position in positions:
        changed = bytearray(raw)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        try:
            found = read_tiles(store, digest)
        except DamagedObjectError:
            n_damaged += 1
        else:
            assert same(found, column)
    assert n_damaged > 0.85 * len(positions)


def test_only_the_chunks_that_are_needed_are_read(store, monkeypatch):
    # More than 2 MiB of counts, so that they lie in several chunks.
    n_mini = 400_000
    n_brick = 100
    big = TileColumn(
        1,
        np.arange(n_brick, dtype=np.int32),
        np.linspace(0, n_mini, n_brick + 1).astype(np.int64),
        np.ones(n_brick, np.float32),
        np.arange(n_mini, dtype=np.uint16),
        np.ones((n_mini, 8), np.uint16),
        8 * n_mini,
    )
    write_tiles(store, "56" * 16, big, {})
    opened = []
    real = zipfile.ZipFile.open

    def spy(self, name, *args, **kwargs):
        opened.append(str(getattr(name, "filename", name)))
        return real(self, name, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "open", spy)
    read_tiles(store, "56" * 16, (0, 2))
    n_part = sum(name.startswith("value/c/") for name in opened)
    opened.clear()
    read_tiles(store, "56" * 16)
    n_all = sum(name.startswith("value/c/") for name in opened)
    assert n_part == 1
    assert n_all == 4


def test_arrays_that_do_not_fit_together_are_damage(store, column):
    arrays = {name: getattr(column, name) for name in ARRAYS}
    attributes = {"n_beamlet": N_BEAMLET, "n_entry": 1}
    store.write_arrays(KIND, "78" * 16, {**arrays, "scale": column.scale[:-1]}, attributes)
    store.write_arrays(KIND, "79" * 16, {**arrays, "value": column.value[:-1]}, attributes)
    store.write_arrays(KIND, "80" * 16, {n: a for n, a in arrays.items() if n != "mini"}, attributes)
    for digest in ("78" * 16, "79" * 16, "80" * 16):
        with pytest.raises(DamagedObjectError):
            read_tiles(store, digest)
