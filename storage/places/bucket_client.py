"""Requests to an S3-compatible object store: who is asked, with which keys, how often, and what refusals mean.

Everything but bucket and prefix comes from the environment variables that all S3 tools know. Keys are never shown.
"""

import errno
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from engine.errors import StoreError
from storage.places.address import BucketAddress

PATIENCE_S = 180
"""How long a request is made again before it has failed."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_REFUSED = "the keys are refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_REGION = "the bucket is in another region; set AWS_REGION to its region, or AWS_ENDPOINT_URL to its server"
_FULL = "the object store is full, or its quota is used up; free some space and give the same command again"
_BUSY = "its server was too busy or failed, also when asked again; see whether it is well, and start again"
_REASONS = {
    "AccessDenied": "access is denied; these keys need to list the bucket, and to read, write and delete in it",
    "AllAccessDisabled": "the account or bucket is closed; ask whoever looks after the object store",
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "InvalidToken": _REFUSED,
    "ExpiredToken": "the keys have expired; get new ones into the environment, and give the same command again",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's; set it (NTP), and start again",
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "InsufficientCapacity": _FULL,
    "EntityTooLarge": "an object is larger than the server takes; raise its limit",
    "NotImplemented": "its server lacks something that a store needs (docs/stores.md); use another one",
}
_STATUSES = {
    "301": _REGION,
    "307": _REGION,
    "401": _REFUSED,
    "403": _REASONS["AccessDenied"],
    "500": _BUSY,
    "502": _BUSY,
    "503": _BUSY,
    "504": _BUSY,
    "507": _FULL,
}


def connect(address: BucketAddress, patient: bool) -> S3Store:
    """Return a client; nothing is asked yet.

    Parameters
    ----------
    address
        Bucket and prefix.
    patient
        Whether to try for minutes, as for results, or for seconds, as for a lease that would be over by then.

    Raises
    ------
    StoreError
        If the environment does not say what is needed.
    """
    missing = [name for name in _KEYS if not os.environ.get(name)]
    if missing:
        # Without keys the client would ask a cloud's metadata service for some.
        raise StoreError(
            f"cannot open the store {address}: {' and '.join(missing)} must be set in the environment, here and on "
            "every worker; docs/stores.md lists all variables"
        )
    endpoint = _endpoint()
    if endpoint.startswith("http://") and not _is_true(os.environ.get("AWS_ALLOW_HTTP", "")):
        raise StoreError(
            f"cannot open the store {address}: {_shown(endpoint)} is not encrypted; use https, or set "
            "AWS_ALLOW_HTTP=true if nobody else can listen"
        )
    options: dict[str, Any] = {
        # A request may be as long as its object, but not be silent.
        "timeout": "10min" if patient else "5s",
        "read_timeout": "30s" if patient else "5s",
        "connect_timeout": "5s" if patient else "2s",
        "allow_http": endpoint.startswith("http://"),
    }
    authorities = os.environ.get("AWS_CA_BUNDLE")
    if authorities:
        try:
            options["root_certificate"] = Path(authorities).read_bytes()
        except OSError as error:
            raise StoreError(
                f"cannot open the store {address}: AWS_CA_BUNDLE names {authorities}, which cannot be read "
                f"({error.strerror}); name the file with your authority's certificate"
            ) from error
    try:
        return S3Store(
            address.bucket,
            prefix=address.prefix or None,
            client_options=options,  # type: ignore[arg-type]
            retry_config={
                "max_retries": 10 if patient else 3,
                "retry_timeout": timedelta(seconds=PATIENCE_S if patient else 5),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=15 if patient else 1),
                    "base": 2,
                },
            },
        )
    except (BaseError, ValueError) as error:
        raise clear(error, address, "open") from None


def clear(error: BaseException, address: BucketAddress, verb: str) -> OSError:
    """Return what an error of the client means; to be raised ``from None``, as answers of servers may repeat keys."""
    text = str(error)
    code = next(iter(_CODE.findall(text)), "")
    status = next(iter(_STATUS.findall(text)), "")
    if code == "NoSuchBucket":
        why = f"there is no bucket '{address.bucket}'; have it made, or give another one with --store"
    elif isinstance(error, FileNotFoundError) or status == "404":
        return FileNotFoundError(errno.ENOENT, "there is no such object", str(address))
    elif "incorrectly configured region" in text:
        why = _REGION
    elif code in _REASONS:
        why = _REASONS[code]
    elif status in _STATUSES:
        why = _STATUSES[status]
    elif "certificate" in text:
        why = "its certificate is not trusted; name your authority's certificate file with AWS_CA_BUNDLE"
    elif "HTTP error" in text or "reqwest" in text:
        why = "it does not answer; check AWS_ENDPOINT_URL and the network, and give the same command again"
    else:
        # No more than that: the rest may be an answer that repeats keys.
        why = f"{code or status or type(error).__name__}; see docs/stores.md for what a store needs of its server"
    return StoreError(f"cannot {verb} the store {address} at {_shown(_endpoint())}: {why}")


def _endpoint() -> str:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        if os.environ.get(name):
            return os.environ[name]
    return "https://s3.amazonaws.com"


def _shown(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on")
