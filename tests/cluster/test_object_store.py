"""Plans, fronts and everything told again on a store in a bucket: killed, went on, the same bits as in a folder."""

import re
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StoreError
from storage.maintenance import check, list_objects
from storage.places.address import BucketAddress, parse_address
from storage.places.opening import place_at
from storage.store import Store
from tests.cluster.two_mounts import SMALLER
from tests.e2e.small_batch import TABLE
from tests.e2e.small_study import STUDY, command, kill_when, plan, run, write_study
from tests.object_store import BUCKET, KEY, SECRET, Proxy, environment, in_environment, object_store

pytestmark = [pytest.mark.site, pytest.mark.cluster, pytest.mark.prefect]
COARSE = STUDY.replace("report_grid_mm = 5.0", "report_grid_mm = 8.0")


@pytest.fixture(scope="module")
def server(prefect):
    """Return the object store's address; Prefect's server is shared meanwhile."""
    with in_environment(prefect), object_store() as url:
        yield url


@pytest.fixture(scope="module")
def in_folder(server, tmp_path_factory):
    """Return the weights of a plan on a store in a folder."""
    folder = tmp_path_factory.mktemp("folder")
    return plan(folder, folder / "store", COARSE, "--workers", "1")


def weights(folder, store, *more):
    done = run(command("plan", write_study(folder, COARSE), store, folder / "out", "--workers", "1", *more))
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out" / "weights.npz") as found:
        return found["weight"]


def logged(store):
    """Return how many pieces of a log the bucket has."""
    try:
        return sum(".log/" in file.key for file in place_at(store).files("solve_log"))
    except StoreError:
        return 0


def mentions_keys(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(word.encode() in path.read_bytes() for word in (KEY, SECRET))]


def test_a_plan_that_is_killed_in_mid_solve_goes_on_and_has_the_bits_of_one_in_a_folder(
    server, in_folder, tmp_path
):
    store = BucketAddress(BUCKET, "killed/store")
    study = write_study(tmp_path, COARSE)
    with in_environment(environment(server)):
        kill_when(
            command("plan", study, store, tmp_path / "out", "--workers", "1"), lambda: logged(store) >= 2
        )
        assert not (tmp_path / "out" / "weights.npz").exists()
        assert logged(store) >= 2
        assert weights(tmp_path, store).tobytes() == in_folder.tobytes()
        assert re.search(r"optimise: done.*\([1-9]", (tmp_path / "out" / "nightbeam.log").read_text())
        assert logged(store) == 0
        found = Store(store)
        assert check(found, list_objects(found)) == []
        assert list(place_at(store).files("leases")) == []
    assert mentions_keys(tmp_path) == []


def test_a_plan_through_a_network_that_loses_requests_has_the_same_bits(server, in_folder, tmp_path):
    proxy = Proxy(server, lambda number, line: ("drop", "deafen")[number % 2] if number % 9 == 0 else "pass")
    with in_environment(environment(proxy.url)):
        assert weights(tmp_path, BucketAddress(BUCKET, "lossy")).tobytes() == in_folder.tobytes()
    assert proxy.n_lost > 20
    proxy.close()


def test_every_command_works_on_a_bucket(server, tmp_path):
    store = parse_address("s3://night/commands")
    out = tmp_path / "out"
    study = write_study(tmp_path, SMALLER)

    def nightbeam(*arguments):
        done = run([*command("x", study, store, out)[:3], *map(str, arguments), "--store", str(store)])
        assert done.returncode == 0, done.stderr
        return done.stdout

    with in_environment(environment(server)):
        refused = run([*command("x", study, store, out)[:3], "report", str(study), "--store", str(store)])
        assert refused.returncode == 2
        assert "there is no store s3://night/commands" in refused.stderr
        nightbeam("plan", study, "--output", out, "--workers", "1")
        nightbeam("report", study, "--output", out / "again")
        assert (out / "again" / "report.html").exists()
        nightbeam("export", study, "--dicom", out / "dicom2")
        assert list((out / "dicom2").glob("*.dcm"))
        nightbeam("pareto", study, "--output", out / "front", "--workers", "1")
        run([*command("x", study, store, out)[:3], "phantom", "water-box", "--dicom", str(out / "box")])
        nightbeam("import", out / "box", "--name", "box")
        imported = tmp_path / "imported.toml"
        (tmp_path / "scanner.csv").write_text(TABLE)
        imported.write_text(
            SMALLER.replace('phantom = "water-box"', 'imported = "box"').replace('"phantom"', '"scanner.csv"')
        )
        assert "the case has all its structures" in nightbeam("check", imported)
        shown = nightbeam("store", "size")
        assert "influence" in shown
        assert "in s3://night/commands" in shown
        assert "the store is whole" in nightbeam("store", "check")
        victim = next(file for file in list_objects(Store(store)) if file.kind == "influence")
        Store(store).place.publish(victim.key, b"damage")
        assert f"influence {victim.name}: damaged" in nightbeam("store", "repair")
        nightbeam("plan", study, "--output", out, "--workers", "1")
        nightbeam("store", "prune", "--to-size", "0")
        left = {file.kind for file in list_objects(Store(store))}
        assert {"case", "case_name"} <= left
        assert "influence" not in left
    assert mentions_keys(tmp_path) == []
