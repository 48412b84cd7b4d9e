"""Looking at the workers of a real cluster."""

from pathlib import Path

import pytest

from cluster.findings import complaints
from cluster.open import open_cluster
from cluster.preflight import do_on_each, look_at_workers
from cluster.seen import see
from flows.store_probe import probe_store
from storage.store import Store

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def client():
    with open_cluster("local", 2) as client:
        yield client


def test_there_is_nothing_to_say_of_local_workers(client):
    workers = look_at_workers(client)
    assert len(workers) == 2
    assert complaints(workers, see()) == []
    assert len({worker.bits for worker in workers}) == 1
    assert workers[0].bits


def test_local_workers_see_the_store_and_leave_nothing_in_it(client, tmp_path):
    store = Store(tmp_path / "store")
    addresses = [worker.address for worker in look_at_workers(client, clocks=False)]
    found = probe_store(client, store, addresses, lambda: None)
    assert set(found) == set(addresses)
    for probed in found.values():
        assert probed.trouble == ""
        assert probed.there_s is not None
        assert probed.back_s is not None
    assert list((store.folder / "aside").iterdir()) == []


def fail_in(folder: Path) -> None:
    raise ValueError(f"nothing in {folder}")


def test_what_fails_on_a_worker_is_told_in_its_words(client, tmp_path):
    (address, *_) = look_at_workers(client, clocks=False)
    found = do_on_each(client, [address.address], fail_in, 30.0, lambda: None, tmp_path)
    result, _, trouble = found[address.address]
    assert result is None
    assert trouble == f"ValueError: nothing in {tmp_path}"
