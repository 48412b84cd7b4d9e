"""Digests: equal for equal things, different for different things, pinned."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.digest import (
    DIGEST_LENGTH,
    digest_of,
    digest_of_array,
    digest_of_code,
    digest_of_files,
    provenance,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=40)
def test_digests_are_short_names_that_do_not_change(value):
    digest = digest_of(value)
    assert len(digest) == DIGEST_LENGTH
    assert set(digest) <= set("0123456789abcdef")
    assert digest_of(value) == digest


@given(st.dictionaries(st.text(), plain, min_size=2))
@settings(max_examples=20)
def test_the_order_of_keys_does_not_matter(value):
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1))
def test_the_last_bit_of_a_number_matters(values):
    changed = [float(np.nextafter(values[0], 2.0 * abs(values[0]) + 1.0)), *values[1:]]
    assert digest_of(changed) != digest_of(values)


def test_tuples_and_numpy_floats_are_plain_values():
    assert digest_of((1.5, [2])) == digest_of([np.float64(1.5), (2,)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_have_no_digest(value):
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"a": value})


def test_digests_are_the_same_in_every_process_and_release():
    # Results in a store are found by these: a change of this value makes every result unreachable.
    assert digest_of({"b": [1, 2.5, None], "a": "é"}) == "84afbf1d4853005f9dd0c81cb1819b53"
    assert digest_of_array(np.arange(6, dtype=np.float32).reshape(2, 3)) == "3378efc20f15f0e870a04920ebd06243"


def test_arrays_differ_by_content_shape_and_dtype():
    array = np.arange(6, dtype=np.float32)
    digests = [
        digest_of_array(a)
        for a in (
            array,
            array.reshape(2, 3),
            array.reshape(3, 2),
            array.astype(np.float64),
            array + 1,
            array[:0],
        )
    ]
    assert len(set(digests)) == 6


def test_the_layout_in_memory_does_not_matter():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert digest_of_array(array[::2, ::3]) == digest_of_array(array[::2, ::3].copy())
    assert digest_of_array(np.asfortranarray(array)) == digest_of_array(array)


def test_code_has_a_digest_by_module_and_by_package():
    assert digest_of_code(("engine.optimise.solvers",)) != digest_of_code(("engine.optimise.problem",))
    assert digest_of_code(("engine.optimise", "engine.model")) == digest_of_code(
        ("engine.model", "engine.optimise")
    )
    assert digest_of_code(("engine.optimise",)) != digest_of_code(("engine.optimise.solvers",))


def test_a_change_of_source_or_table_changes_the_digest_of_code(tmp_path):
    package = tmp_path / "some_package"
    (package / "inner").mkdir(parents=True)
    for file in (package / "__init__.py", package / "inner" / "__init__.py", package / "inner" / "part.py"):
        file.write_text("")

    def digest():
        program = "from storage.digest import digest_of_code; print(digest_of_code(('some_package',)))"
        path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        return subprocess.run(
            [sys.executable, "-B", "-c", path + program], capture_output=True, text=True, check=True
        ).stdout

    before = digest()
    (package / "inner" / "part.py").write_text("VALUE = 1\n")
    changed = digest()
    assert changed != before
    (package / "inner" / "table.csv").write_text("1\n")
    assert digest() not in (before, changed)


def test_files_differ_by_name_and_content_not_by_order_or_folder(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / name).write_bytes(name.encode() * 10)
    one, two = ([tmp_path / folder / name for name in "ab"] for folder in ("one", "two"))
    assert digest_of_files(one) == digest_of_files(two[::-1])
    two[0].write_bytes(b"changed")
    assert digest_of_files(one) != digest_of_files(two)
    one[1].rename(tmp_path / "one" / "c")
    assert digest_of_files([one[0], tmp_path / "one" / "c"]) != digest_of_files(
        [one[0], tmp_path / "two" / "b"]
    )


def test_files_of_one_name_have_one_digest_in_whatever_order_they_are_listed(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.dcm").write_text(folder)
    files = [tmp_path / "one/1.dcm", tmp_path / "two/1.dcm"]
    assert digest_of_files(files) == digest_of_files(files[::-1])


def test_provenance_says_from_what_when_and_with_which_versions():
    kept = provenance({"case": "abc"}, 1.5)
    assert kept["made_from"] == {"case": "abc"}
    assert kept["cpu_s"] == 1.5
    assert kept["made_at"].endswith("+00:00")
    assert kept["versions"]["numpy"] == np.__version__
