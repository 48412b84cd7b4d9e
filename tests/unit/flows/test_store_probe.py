"""Whether a worker sees the planning process's store."""

import flows.store_probe
from flows.store_probe import _path, _probe_there, _publish
from storage.store import Store


def test_a_worker_that_sees_the_file_writes_one_back(tmp_path):
    store = Store(tmp_path / "store")
    _publish(_path(store.folder, "ours"))
    there_s, theirs = _probe_there(store.folder, "ours")
    assert there_s < 60.0
    assert theirs.is_file()


def test_a_worker_without_the_store_makes_none(tmp_path):
    assert "does not see the store" in _probe_there(tmp_path / "store", "ours")
    assert not (tmp_path / "store").exists()


def test_a_worker_with_another_store_at_the_same_path_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.store_probe, "_SEEN_S", 0.1)
    assert "sees another store" in _probe_there(Store(tmp_path / "store").folder, "ours")
