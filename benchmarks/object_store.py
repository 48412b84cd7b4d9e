"""What a store in a bucket costs beside one in a folder: time, requests and bytes of one plan, and of single objects.

    python -m benchmarks.object_store

The server is moto's on the same machine, so a request costs its CPU time and no way over a network: ratios of time
say what the store adds, not how far away somebody's server is.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from engine.model.influence import TileColumn
from storage.influence import read_tiles, write_tiles
from storage.places.address import Address, BucketAddress
from storage.store import Store
from tests.e2e.small_study import STUDY, plan
from tests.object_store import BUCKET, Proxy, environment, in_environment, object_store

_N_REPEAT = 5


def _column(n_mini: int, n_brick: int = 100) -> TileColumn:
    # As well compressible as real tiles: small values.
    value = np.random.default_rng(5).integers(0, 4096, (n_mini, 8)).astype(np.uint16)
    begin = np.linspace(0, n_mini, n_brick + 1).astype(np.int64)
    ones = np.ones(n_brick, np.float32)
    return TileColumn(
        1,
        np.arange(n_brick, dtype=np.int32),
        begin,
        ones,
        np.arange(n_mini).astype(np.uint16),
        value,
        8 * n_mini,
    )


def _objects(address: Address, column: TileColumn) -> dict[str, float]:
    """Return the least seconds of writing and reading one object."""
    store = Store(address)
    took: dict[str, list[float]] = {"write": [], "read": [], "read a fifth": []}
    for number in range(_N_REPEAT):
        digest = f"{number:032x}"
        for what, work in (
            ("write", lambda d: write_tiles(store, d, column, {})),
            ("read", lambda d: read_tiles(store, d)),
            ("read a fifth", lambda d: read_tiles(store, d, (40, 20))),
        ):
            begin_s = time.perf_counter()
            work(digest)
            took[what].append(time.perf_counter() - begin_s)
    return {what: min(seconds) for what, seconds in took.items()}


def _plan(folder: Path, address: Address) -> tuple[float, bytes]:
    begin_s = time.perf_counter()
    weight = plan(folder, address, STUDY, "--workers", "1")
    return time.perf_counter() - begin_s, weight.tobytes()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, object_store() as url:
        folder, proxy = Path(temporary), Proxy(url)
        with in_environment(environment(proxy.url)):
            for n_mini in (10_000, 1_000_000):
                column = _column(n_mini)
                places = {
                    "folder": folder / f"store{n_mini}",
                    "bucket": BucketAddress(BUCKET, f"objects{n_mini}"),
                }
                took = {name: _objects(address, column) for name, address in places.items()}
                n_request, n_byte = len(proxy.lines), proxy.n_got_byte
                read_tiles(Store(places["bucket"]), f"{0:032x}", (40, 20))
                n_part = proxy.n_got_byte - n_byte
                print(f"tiles of {column.value.nbytes / 1e6:.1f} MB, bucket : folder", end="")
                print(
                    "".join(f", {what} {took['bucket'][what] / s:.1f}" for what, s in took["folder"].items()),
                    end="",
                )
                print(f"; a fifth costs {n_part / 1e6:.2f} MB, {len(proxy.lines) - n_request} requests")
            for what in ("first", "again"):
                begin, sent, got = len(proxy.lines), proxy.n_sent_byte, proxy.n_got_byte
                in_bucket_s, in_bucket = _plan(folder / "b", BucketAddress(BUCKET, "plan"))
                lines = Counter(line.split()[0] for line in proxy.lines[begin:])
                sent, got = proxy.n_sent_byte - sent, proxy.n_got_byte - got
                in_folder_s, in_folder = _plan(folder / "f", folder / "store")
                bits = "the same bits" if in_bucket == in_folder else "OTHER BITS"
                print(
                    f"plan, {what}: {in_bucket_s / in_folder_s:.2f} times the folder's {in_folder_s:.1f} s, "
                    f"{dict(lines)}, {sent / 1e6:.1f} MB up, {got / 1e6:.1f} MB down; {bits}"
                )
        proxy.close()


if __name__ == "__main__":
    main()
