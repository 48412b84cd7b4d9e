"""Whether a worker sees the planning process's store."""

import pytest

import flows.store_probe
from flows.store_probe import _key, _probe_there
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
