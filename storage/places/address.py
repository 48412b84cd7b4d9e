"""Where a store is: a folder, or ``s3://BUCKET/PREFIX``. Light, because every command's help imports it."""

import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import StoreError, shortened

_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class BucketAddress:
    """A place in S3-compatible object storage; which server, and with which keys, says the environment.

    Parameters
    ----------
    bucket
        Name of the bucket.
    prefix
        Names of folders between slashes, or nothing.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


Address = Path | BucketAddress


def parse_address(text: str) -> Address:
    """Return the address that a text means.

    Raises
    ------
    StoreError
        If it begins as an address of a bucket and is none.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return Path(text)
    if scheme != "s3":
        raise StoreError(
            f"'{shortened(scheme)}://' is no kind of store; give a folder, or s3://BUCKET/PREFIX, with --store"
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.removesuffix("/")
    if not _BUCKET.fullmatch(bucket) or not all(map(_FOLDER.fullmatch, prefix.split("/") if prefix else ())):
        # Not repeated: somebody may have written keys into it.
        raise StoreError(
            "the store's address is not s3://BUCKET/PREFIX (bucket: 3 to 63 of a-z 0-9 . -; prefix: names of letters, "
            "digits and . _ - with / between); keys and endpoint belong in the environment, see docs/stores.md"
        )
    return BucketAddress(bucket, prefix)


def local_folder(store: Address, output: Path) -> Path:
    """Return where a run keeps what is no result (databases, files of jobs): in the store's folder if it has one."""
    return store if isinstance(store, Path) else output


def resolve(address: Address) -> Address:
    """Return an address that means the same from every working folder."""
    return address.resolve() if isinstance(address, Path) else address
