"""Whether a worker sees the planning process's store."""

import pytest

import cluster.preflight
import flows.store_probe
from flows.store_probe import _key, _probe_there, probe_store
from storage.places.address import BucketAddress
from storage.places.opening import place_at
from storage.store import Store
from tests.object_store import BUCKET, environment, in_environment, object_store


@pytest.fixture(scope="module")
def server():
    with object_store() as url:
        yield url


@pytest.fixture(params=["folder", "bucket"])
def address(request, tmp_path):
    if request.param == "folder":
        yield tmp_path / "store"
    else:
        with in_environment(environment(request.getfixturevalue("server"))):
            yield BucketAddress(BUCKET, request.node.name.replace("[", "-").removesuffix("]"))


def test_a_worker_that_sees_the_file_writes_one_back(address):
    place = Store(address).place
    place.publish(_key("ours"), b"something")
    there_s, theirs = _probe_there(address, "ours")
    assert there_s < 60.0
    assert place.is_there(theirs)


def test_a_worker_without_the_store_makes_none(address):
    assert "does not see the store" in _probe_there(address, "ours")
    assert not place_at(address).exists()


def test_a_worker_with_another_store_at_the_same_address_says_so(address, monkeypatch):
    monkeypatch.setattr(flows.store_probe, "_SEEN_S", 0.1)
    Store(address)
    assert "sees another store" in _probe_there(address, "ours")


def test_a_worker_without_keys_to_the_bucket_says_so(server):
    address = BucketAddress(BUCKET, "keys")
    with in_environment({**environment(server), "AWS_SECRET_ACCESS_KEY": ""}):
        assert "cannot use the store: " in _probe_there(address, "ours")


class Clock:
    """A clock that goes on only when somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic(self):
        return self.now_s

    def sleep(self, span_s):
        self.now_s += span_s


def test_files_of_all_workers_are_waited_for_at_once(tmp_path, monkeypatch):
    store, clock = Store(tmp_path / "store"), Clock()
    names = [f"tls://node{number}:1" for number in range(20)]
    told = {name: ((0.1, _key(name[6:-2])), 1.0, "") for name in names}
    store.place.publish(_key("node7"), b"something")
    monkeypatch.setattr(cluster.preflight, "do_on_each", lambda *_: told)
    monkeypatch.setattr(flows.store_probe, "time", clock)
    found = probe_store(None, store, names, lambda: None)
    assert [name for name, probed in found.items() if not probed.trouble] == ["tls://node7:1"]
    assert clock.now_s < 2.0 * flows.store_probe._SEEN_S
    assert list((store.folder / "aside").iterdir()) == []
