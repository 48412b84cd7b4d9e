"""A store in a bucket: the promises of a store in a folder, what the network may do to it, and what is said then."""

import dataclasses
import itertools
import threading
import time

import numpy as np
import obstore
import pytest

from engine.errors import DamagedObjectError, LeaseLostError, MissingObjectError, StaleLogError, StoreError
from engine.model.influence import TileColumn
from engine.optimise.problem import Evaluation
from storage import lease as lease_module
from storage import log_files
from storage.evaluation_log import EvaluationLog
from storage.influence import read_tiles, write_tiles
from storage.lease import Claim, live_since, take_run_lease
from storage.maintenance import check, clear_aside, list_folder, list_objects, n_byte_of_store, put_away
from storage.places import bucket, bucket_client
from storage.places.address import BucketAddress, parse_address
from storage.places.opening import place_at
from storage.pruning import choose, delete
from storage.store import SCHEMA_VERSION, Store
from tests.object_store import (
    BUCKET,
    KEY,
    SECRET,
    Proxy,
    answering,
    environment,
    in_environment,
    object_store,
)

KIND, DIGEST = "thing", "ab" * 16
ARRAYS = {
    "counts": np.arange(300, dtype=np.uint16).reshape(100, 3),
    "gy": np.linspace(0.0, 1.0, 50),
    "zeros": np.zeros((4, 5), np.float32),
    "none": np.empty((0, 8), np.uint16),
}
ATTRIBUTES = {"n": 3, "provenance": {"made_from": ["a", 1.5]}}


@pytest.fixture(scope="module")
def server():
    with object_store() as url:
        yield url


_numbers = itertools.count()


def new_address():
    return BucketAddress(BUCKET, f"test/{next(_numbers)}")


@pytest.fixture
def store(server):
    with in_environment(environment(server)):
        yield Store(new_address())


@pytest.fixture
def thing(store):
    """Return the key of a published object."""
    store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
    return f"{KIND}/ab/{DIGEST}.zarr.zip"


@pytest.fixture
def through(server):
    """Return a proxy before the server, and a store behind it."""
    proxy = Proxy(server)
    with in_environment(environment(proxy.url)):
        yield proxy, Store(new_address())
    proxy.close()


def same(arrays, attributes):
    return (
        set(arrays) == set(ARRAYS)
        and attributes == ATTRIBUTES
        and all(
            arrays[name].dtype == a.dtype and np.array_equal(arrays[name], a) for name, a in ARRAYS.items()
        )
    )


def put(store, key, content):
    obstore.put(store.place._client, key, content)


def keys(store, folder=""):
    return sorted(file.key for file in store.place.files(folder))


def assert_one_sentence(error):
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    assert KEY not in str(error)
    assert SECRET not in str(error)


# -- addresses ------------------------------------------------------------------------------------------------------


def test_an_address_of_a_bucket_is_read_and_said_again():
    for text in ("s3://night", "s3://night/a/b-c.d"):
        assert str(parse_address(text)) == text
    assert parse_address("s3://night/a/") == BucketAddress("night", "a")


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3://a",
        "s3://Night/x",
        "s3://key:secret@night/x",
        "s3://night//x",
        "s3://night/../x",
        "gs://night",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(text):
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX") as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)


# -- objects --------------------------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were(store, thing):
    assert store.has_arrays(KIND, DIGEST)
    assert same(*store.read_arrays(KIND, DIGEST))
    assert store.read_arrays(KIND, DIGEST, ["gy"])[0].keys() == {"gy"}
    with store.open_arrays(KIND, DIGEST) as (group, attributes):
        assert (group["counts"][40:60] == ARRAYS["counts"][40:60]).all()
        assert attributes == ATTRIBUTES


def test_records_come_back_as_they_were_and_are_listed(store):
    for name in ("two", "one"):
        store.write_record(KIND, name, {"is": name})
    assert store.has_record(KIND, "one")
    assert store.read_record(KIND, "two") == {"is": "two"}
    assert store.record_names(KIND) == ["one", "two"]
    assert store.record_names("nothing") == []


def test_what_is_not_there_is_missing(store):
    assert not store.has_arrays(KIND, DIGEST)
    assert not store.has_record(KIND, "one")
    for read in (lambda: store.read_arrays(KIND, DIGEST), lambda: store.read_record(KIND, "one")):
        with pytest.raises(MissingObjectError):
            read()


def test_a_store_is_found_again_and_travels_between_processes(store, thing):
    import pickle

    again = pickle.loads(pickle.dumps(store))
    assert again.address == store.address
    assert same(*again.read_arrays(KIND, DIGEST))
    assert SECRET.encode() not in pickle.dumps(store)


def test_a_prefix_with_other_things_or_another_schema_is_refused(store):
    other = BucketAddress(BUCKET, f"{store.address.prefix}x")
    put(store, "nightbeam-store.json", f'{{"schema_version": {SCHEMA_VERSION + 1}}}'.encode())
    with pytest.raises(StoreError, match="has schema version"):
        Store(store.address)
    obstore.put(store.place._client, "deeper/file", b"1")
    with pytest.raises(StoreError, match="is not a nightbeam store and not empty"):
        Store(BucketAddress(BUCKET, f"{store.address.prefix}/deeper"))
    Store(other)


def test_a_store_that_can_be_written_is_found_so_and_stays_as_it_was(store):
    before = keys(store)
    store.require_writable()
    assert keys(store) == before


def test_changed_bytes_and_cut_ends_are_damage_and_are_made_again(store, thing):
    raw = store.place.read(thing)
    n_damaged = 0
    for position in range(0, len(raw), 101):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        put(store, thing, bytes(changed))
        try:
            assert same(*store.read_arrays(KIND, DIGEST))
        except DamagedObjectError:
            n_damaged += 1
    assert n_damaged > 0.8 * len(range(0, len(raw), 101))
    for length in (0, 21, len(raw) // 2, len(raw) - 1):
        put(store, thing, raw[:length])
        with pytest.raises(DamagedObjectError, match=DIGEST):
            store.read_arrays(KIND, DIGEST)
    store.discard(KIND, DIGEST)
    assert not store.has_arrays(KIND, DIGEST)
    assert len(keys(store, "damaged")) == 1
    store.discard(KIND, DIGEST)
    store.write_arrays(KIND, DIGEST, ARRAYS, ATTRIBUTES)
    assert same(*store.read_arrays(KIND, DIGEST))


def column(n_mini=800_000, n_brick=100):
    rng = np.random.default_rng(5)
    return TileColumn(
        1,
        np.arange(n_brick, dtype=np.int32),
        np.linspace(0, n_mini, n_brick + 1).astype(np.int64),
        np.ones(n_brick, np.float32),
        np.arange(n_mini).astype(np.uint16),
        rng.integers(0, 65536, (n_mini, 8)).astype(np.uint16),
        8 * n_mini,
    )


def test_a_large_object_is_sent_in_parts_and_only_what_is_needed_comes_back(through, monkeypatch):
    proxy, store = through
    big = column()
    monkeypatch.setattr(bucket, "_PART_BYTES", 5 << 20)
    write_tiles(store, DIGEST, big, {})
    assert any("uploads" in line for line in proxy.lines)
    before = proxy.n_got_byte
    few = read_tiles(store, DIGEST, (10, 2))
    n_few = proxy.n_got_byte - before
    assert (few.value == big.value[80_000:96_000]).all()
    whole = read_tiles(store, DIGEST)
    assert all(np.array_equal(getattr(whole, f.name), getattr(big, f.name)) for f in dataclasses.fields(big))
    assert n_few < 0.25 * (proxy.n_got_byte - before - n_few)


# -- looking after it -----------------------------------------------------------------------------------------------


def test_objects_are_listed_checked_and_put_away(store, thing):
    store.write_record("note", "one", {"text": "x"})
    put(store, "aside/half", b"123")
    put(store, "thing/readme.txt", b"no object")
    assert [(f.kind, f.name) for f in list_objects(store)] == [("note", "one"), (KIND, DIGEST)]
    assert check(store, list_objects(store)) == []
    put(store, thing, store.place.read(thing)[:-5])
    findings = check(store, list_objects(store))
    assert [(f.file.name, f.is_damaged) for f in findings] == [(DIGEST, True)]
    assert len(put_away(store, findings)) == 1
    assert [f.name for f in clear_aside(store)] == ["half"]
    assert n_byte_of_store(store) == sum(f.n_byte for f in store.place.files(""))
    assert [f.kind for f in list_folder(store, "damaged")] == ["damaged"]


def wait_until(condition, limit_s=60.0):
    limit_s += time.monotonic()
    while not condition():
        assert time.monotonic() < limit_s, "what was waited for never came"
        time.sleep(0.02)


def test_to_find_an_object_is_to_use_it_and_what_was_used_is_not_pruned(store, thing):
    other = "cd" * 16
    store.write_arrays(KIND, other, ARRAYS, {})
    listed = {file.name: file for file in list_objects(store)}
    time.sleep(1.1)  # the server's clock counts seconds
    assert store.has_arrays(KIND, DIGEST)
    wait_until(lambda: {f.name: f for f in list_objects(store)}[DIGEST].used_s > listed[DIGEST].used_s)
    chosen = choose(store, None, 0.0, ())
    assert [file.name for file in chosen.files] == [other, DIGEST]
    # Used since it was listed: it stays.
    assert [file.name for file in delete(store, [listed[DIGEST], listed[other]])] == [other]
    assert store.has_arrays(KIND, DIGEST)
    assert not store.has_arrays(KIND, other)


def test_a_live_run_keeps_what_it_has_used(store, thing):
    with take_run_lease(store.address):
        assert live_since(store.address) is not None
        chosen = choose(store, None, 0.0, ())
        assert (chosen.files, chosen.n_held) == ((), 1)
    assert live_since(store.address) is None
    assert len(delete(store, choose(store, None, 0.0, ()).files)) == 1


# -- leases ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_S", 2.0)
    monkeypatch.setattr(lease_module, "_BEAT_S", 0.2)


def test_a_lease_has_one_holder_and_can_be_given_back(store):
    with Claim(store.address, "solve-a").try_take() as held:
        claim = Claim(store.address, "solve-a")
        assert claim.try_take() is None
        assert "process" in str(claim.holder)
        for _ in range(3):
            held._beat()
        assert held.is_held()
    assert keys(store, "leases") == []
    with Claim(store.address, "solve-a").try_take():
        pass


def test_a_silent_holder_loses_its_lease_and_notices(store, short, monkeypatch):
    with Claim(store.address, "solve-a").try_take() as old:
        monkeypatch.setattr(lease_module.Lease, "_beat_until_ended", lambda self: None)
        old._ended.set()
        taken = []
        claim = Claim(store.address, "solve-a")
        wait_until(lambda: taken or taken.extend(filter(None, [claim.try_take()])) or taken)
        with taken[0]:
            with pytest.raises(LeaseLostError):
                old.require_held()
            old._beat()
            assert not old.is_held()


def test_of_many_who_race_for_a_lease_exactly_one_gets_it(store):
    for number in range(5):
        barrier, taken = threading.Barrier(6), []

        def contend(name=f"solve-{number}", barrier=barrier, taken=taken):
            claim = Claim(store.address, name)
            barrier.wait()
            lease = claim.try_take()
            if lease is not None:
                taken.append(lease)

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        taken[0].release()


def test_a_lease_whose_answers_are_lost_is_taken_and_kept(through):
    proxy, store = through
    lose = itertools.count()
    # Every second request that puts under a condition is done, but nobody hears of it.
    proxy.fate = lambda number, line: (
        "deafen" if "/leases/" in line and "PUT" in line and next(lose) % 2 == 0 else "pass"
    )
    with Claim(store.address, "solve-a").try_take() as held:
        for _ in range(4):
            held._beat()
            assert held.is_held()
    assert proxy.n_lost >= 3


# -- logs -----------------------------------------------------------------------------------------------------------


def questions(n):
    rng = np.random.default_rng(71)
    return [
        (
            rng.random(4),
            0.1 * k,
            Evaluation(rng.random(), rng.normal(size=4), rng.random((2, 3)), rng.random()),
        )
        for k in range(n)
    ]


def fill(store, n, writer, finished=False):
    log = EvaluationLog(store.address, "abc", writer)
    for number, question in enumerate(questions(n), start=1):
        if log.replay(*question[:2]) is None:
            log.append(*question, float(number))
    log.close(finished=finished)


def n_replayed(store, writer):
    log = EvaluationLog(store.address, "abc", writer)
    for weight, temperature, evaluation in questions(log.n_replayable):
        assert log.replay(weight, temperature).gradient.tobytes() == evaluation.gradient.tobytes()
    log.close(finished=False)
    return log.n_replayable


def test_what_was_logged_is_replayed_by_the_next_writer_alone(store):
    fill(store, 3, "one")
    orphan = EvaluationLog(store.address, "abc", "two")
    assert orphan.n_replayable == 3
    assert n_replayed(store, "three") == 3
    orphan.append(*questions(4)[3], 4.0)
    orphan.close(finished=False)
    assert n_replayed(store, "four") == 3
    fill(store, 5, "five", finished=True)
    assert [key for key in keys(store, "solve_log") if ".log/" in key] == []


def test_a_log_with_a_gap_or_a_cut_counts_up_to_there(store, monkeypatch):
    monkeypatch.setattr(log_files, "SEND_EVERY_S", 0.0)
    log = EvaluationLog(store.address, "abc", "one")
    for number, question in enumerate(questions(4), start=1):
        log.append(*question, float(number))
        wait_until(lambda: not log._log._unsent)
    log.close(finished=False)
    rows = keys(store, "solve_log")
    assert len(rows) == 5
    put(store, rows[4], store.place.read(rows[4])[:-3])
    content = {key: store.place.read(key) for key in rows}
    assert n_replayed(store, "two") == 3
    store.place.delete(keys(store, "solve_log"))
    for key in (*rows[:2], *rows[3:]):
        put(store, key, content[key])
    assert n_replayed(store, "three") == 1


def test_a_log_of_other_questions_is_put_aside(store):
    fill(store, 2, "one")
    log = EvaluationLog(store.address, "abc", "two")
    with pytest.raises(StaleLogError, match=r"put aside as abc\.two\.stale"):
        log.replay(np.zeros(4), 0.5)
    log.close(finished=False)
    assert n_replayed(store, "three") == 0
    assert any("two.stale/" in key for key in keys(store, "solve_log"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_sending_of_a_log_ends_the_solve_that_writes_it(store, monkeypatch):
    log = EvaluationLog(store.address, "abc", "one")

    def publish(key, content):
        raise MemoryError("no memory to send it")

    monkeypatch.setattr(log._log._bucket, "publish", publish)
    first, second = questions(2)
    log.append(*first, 1.0)
    log._log._thread.join(60.0)
    with pytest.raises(MemoryError, match="to send it"):
        log.append(*second, 2.0)


# -- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["drop", "deafen"])
def test_nothing_is_lost_where_every_third_request_is(through, fate):
    proxy, store = through
    proxy.fate = lambda number, line: fate if number % 3 == 0 else "pass"
    for number in range(6):
        digest = f"{number:02x}" * 16
        store.write_arrays(KIND, digest, ARRAYS, ATTRIBUTES)
        store.write_record("note", digest, number)
    fill(store, 3, "one")
    assert n_replayed(store, "two") == 3
    assert [store.read_record("note", name) for name in store.record_names("note")] == list(range(6))
    assert all(same(*store.read_arrays(KIND, f"{number:02x}" * 16)) for number in range(6))
    assert check(store, list_objects(store)) == []
    assert proxy.n_lost > 10


# -- what is said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID must be set in the environment"),
        ({"AWS_ALLOW_HTTP": ""}, "is not encrypted; use https, or set AWS_ALLOW_HTTP=true"),
        ({"AWS_CA_BUNDLE": "/nowhere.pem"}, "AWS_CA_BUNDLE names /nowhere.pem, which cannot be read"),
    ],
)
def test_an_environment_that_lacks_something_is_one_sentence(server, change, sentence):
    with (
        in_environment({**environment(server), **change}),
        pytest.raises(StoreError, match=sentence) as caught,
    ):
        Store(new_address())
    assert_one_sentence(caught.value)


def test_a_bucket_that_is_not_there_is_one_sentence(server):
    with (
        in_environment(environment(server)),
        pytest.raises(StoreError, match="there is no bucket 'nobody'") as caught,
    ):
        Store(BucketAddress("nobody", "x"))
    assert_one_sentence(caught.value)


REFUSALS = {
    "AccessDenied": (403, "access is denied"),
    "SignatureDoesNotMatch": (403, "the keys are refused"),
    "RequestTimeTooSkewed": (403, r"set it \(NTP"),
    "PermanentRedirect": (301, "in another region; set AWS_REGION"),
    "AuthorizationHeaderMalformed": (400, "in another region; set AWS_REGION"),
    "QuotaExceeded": (403, "quota is used up; free some space"),
    "XMinioStorageFull": (507, "is full"),
    "Whatever": (418, "Whatever"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_one_sentence_that_says_what_to_do_and_no_key(code):
    status, sentence = REFUSALS[code]
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>".encode()
    answer = (
        f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
    with (
        answering(answer) as url,
        in_environment(environment(url)),
        pytest.raises(StoreError, match=sentence) as caught,
    ):
        Store(new_address())
    assert_one_sentence(caught.value)


def test_a_server_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setattr(bucket_client, "PATIENCE_S", 1)
    with (
        in_environment(environment("http://127.0.0.1:9")),
        pytest.raises(StoreError, match="does not answer") as caught,
    ):
        Store(new_address())
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(("what", "answer"), [("make", "version"), ("change", "version"), ("change", None)])
def test_a_server_without_conditions_is_told_of_before_anything_is_computed(store, monkeypatch, what, answer):
    monkeypatch.setattr(type(store.place), what, lambda *_: answer)
    with pytest.raises(StoreError, match="does not obey the conditions"):
        store.require_writable()


def test_what_needs_a_folder_says_so(store):
    with pytest.raises(StoreError, match="is not in a folder, which this needs"):
        _ = store.folder
    assert place_at(store.address).exists()
