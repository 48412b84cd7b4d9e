"""An object store for tests: moto's S3 server on loopback, and a proxy before it that counts and loses requests."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BUCKET = "night"
KEY, SECRET = "AKIATESTTESTTESTTEST", "secret-that-nobody-may-see"


@contextmanager
def object_store() -> Iterator[str]:
    """Run a server in a process of its own; yields its address. It has one bucket, `BUCKET`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        make_bucket(url)
        yield url
    finally:
        server.kill()
        server.wait()


def make_bucket(url: str) -> None:
    limit_s = time.monotonic() + 120.0
    while True:
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"{url}/{BUCKET}", data=b"", method="PUT"), timeout=60
            ).close()
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < limit_s, "the object store did not start"
            time.sleep(0.05)


def environment(url: str) -> dict[str, str]:
    """Return what has to be in the environment of whoever uses the server."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
    }  # fmt: skip


class Proxy:
    """Passes requests on, counts them and their bytes, and does what ``fate`` says with each.

    ``fate`` gets the number of a request and its first line, and returns ``pass``, ``drop`` (the connection is closed
    before the server hears of it) or ``deafen`` (the server does it, but its answer is lost).
    """

    def __init__(self, url: str, fate: Callable[[int, str], str] = lambda number, line: "pass") -> None:
        host, port = url.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.fate = fate
        self._lock = threading.Lock()
        self.lines: list[str] = []
        self.n_lost = self.n_sent_byte = self.n_got_byte = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._server) as server:
            from_client, from_server = client.makefile("rb"), server.makefile("rb")
            while (request := _message(from_client)) is not None:
                line = request.split(b"\r\n", 1)[0].decode()
                with self._lock:
                    self.lines.append(line)
                    self.n_sent_byte += len(request)
                    fate = self.fate(len(self.lines), line)
                    self.n_lost += fate != "pass"
                if fate == "drop":
                    return
                server.sendall(request)
                answer = _message(from_server, is_head=line.startswith("HEAD"))
                if answer is None or fate == "deafen":
                    return
                with self._lock:
                    self.n_got_byte += len(answer)
                client.sendall(answer)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer every request in the same way; yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, client.makefile("rb") as stream:
                        _message(stream)
                        client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _message(stream, is_head: bool = False) -> bytes | None:
    """Read one HTTP message, as long as its headers say."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    n_byte = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            n_byte = int(line.split(b":")[1])
        assert not line.startswith(b"transfer-encoding: chunked"), "chunks are not understood"
    return head + (b"" if is_head or not n_byte else stream.read(n_byte))


@contextmanager
def in_environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables, and forget the clients that were made with others."""
    from storage.places import opening

    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    opening.bucket_at.cache_clear()
    try:
        yield
    finally:
        opening.bucket_at.cache_clear()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
