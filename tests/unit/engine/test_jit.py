"""Machine code on disk belongs to the sources it was made from, helpers and constants included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import engine
from engine._jit import cache_folder, sources_digest

ENGINE = Path(str(engine.__file__)).parent
ROOT = ENGINE.parent


@pytest.fixture
def copy(tmp_path):
    """Return a copy of the sources of the package."""
    return shutil.copytree(
        ENGINE, tmp_path / "copy" / "engine", ignore=shutil.ignore_patterns("__pycache__", "data")
    )


def in_new_process(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **{key: v for key, v in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")},
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_place_of_the_sources_does_not_matter(copy):
    assert sources_digest(copy) == sources_digest(ENGINE)


@pytest.mark.parametrize(
    "name",
    [
        "_jit.py",
        "_vector.py",
        "dose/photon_pencil_beam_kernels.py",  # kernels
        "physics/kernel_calculation/particles.py",  # helpers that are compiled into others
        "physics/constants.py",  # constants that kernels were compiled with
        "influence/rows.py",
    ],
)
def test_other_sources_of_kernels_are_another_digest(copy, name):
    source = copy / name
    source.write_text(source.read_text() + "\n# edited\n")
    assert sources_digest(copy) != sources_digest(ENGINE)


def test_a_source_that_no_kernel_comes_from_does_not_matter(copy):
    source = copy / "spec" / "study.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert sources_digest(copy) == sources_digest(ENGINE)


def test_another_state_of_the_sources_has_another_folder(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    before = cache_folder(copy)
    assert before == cache_folder(copy)
    (copy / "_vector.py").write_text((copy / "_vector.py").read_text() + "\n# edited\n")
    after = cache_folder(copy)
    assert before.is_dir()
    assert after.is_dir()
    assert before != after
    assert {folder.parent for folder in (before, after)} == {tmp_path / "caches" / "nightbeam"}


def test_a_relative_cache_home_is_ignored(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(copy).parent == tmp_path / ".cache" / "nightbeam"


@pytest.mark.parametrize("module", ["engine._vector", "engine.geometry.voxelise_kernels"])
def test_whatever_is_imported_first_numba_has_the_folder(module, tmp_path):
    code = f"import {module}, numba; print(numba.config.CACHE_DIR)"
    expected = tmp_path / "nightbeam" / f"numba-{sources_digest(ENGINE)}"
    assert in_new_process(code, XDG_CACHE_HOME=str(tmp_path)) == str(expected)
    # Also where something else brought numba in before.
    assert in_new_process(f"import numba; {code}", XDG_CACHE_HOME=str(tmp_path)) == str(expected)


WHERE_A_KERNEL_IS_KEPT = "from engine.geometry import raytrace; print(raytrace._trace.stats.cache_path)"


def test_kernels_are_kept_in_the_folder(tmp_path):
    kept = Path(in_new_process(WHERE_A_KERNEL_IS_KEPT, XDG_CACHE_HOME=str(tmp_path)))
    assert kept.is_relative_to(tmp_path / "nightbeam" / f"numba-{sources_digest(ENGINE)}")


def test_a_folder_that_the_user_chose_stays(tmp_path):
    kept = Path(in_new_process(WHERE_A_KERNEL_IS_KEPT, NUMBA_CACHE_DIR=str(tmp_path / "mine")))
    assert kept.is_relative_to(tmp_path / "mine")
    assert not (tmp_path / ".cache").exists()


def test_without_a_home_that_can_be_written_numba_chooses():
    # Below a file no folder can be made, by nobody.
    kept = Path(in_new_process(WHERE_A_KERNEL_IS_KEPT, HOME="/dev/null", XDG_CACHE_HOME=""))
    assert kept == ENGINE / "geometry" / "__pycache__"
