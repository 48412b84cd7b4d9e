"""The place of an address."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from storage.places.address import Address, BucketAddress
from storage.places.folder import Folder
from storage.places.place import Place

if TYPE_CHECKING:
    from storage.places.bucket import Bucket


def place_at(address: Address) -> Place:
    """Return the place; nothing is opened or made yet, but the environment of a bucket is looked at.

    Raises
    ------
    StoreError
        If the environment does not say what is needed to reach a bucket.
    """
    return Folder(address.resolve()) if isinstance(address, Path) else bucket_at(address)


@lru_cache
def bucket_at(address: BucketAddress) -> "Bucket":
    """Return the bucket of an address, the same one each time: it holds connections.

    Raises
    ------
    StoreError
        If the environment does not say what is needed to reach it.
    """
    # Imported late: a store in a folder needs no client.
    from storage.places.bucket import Bucket

    return Bucket(address)
