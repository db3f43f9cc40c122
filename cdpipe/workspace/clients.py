"""Object stores as their library's clients: made once, tried again, counted; errors without credentials.

Credentials, region and endpoint come from where the providers' own tools take them: ``AWS_*``, ``GOOGLE_*`` and
``AZURE_*`` in the environment, or the machine's role. Addresses never hold any.
"""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeVar

from cdpipe.errors import ConfigError

# The library tries again after 5xx, throttling and connections that broke before the answer; see :func:`_tried`.
RETRIES: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
}
TIMEOUTS: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=120)}
QUICK_RETRIES = {"retry_timeout": timedelta(seconds=5)}
QUICK_TIMEOUTS: dict[str, Any] = {"connect_timeout": timedelta(seconds=3), "timeout": timedelta(seconds=5)}
TRIES, PAUSE = 4, 0.5  # of an answer that broke off while it was read; seconds before the second, then twice as long
SECRETS = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|SAS|CONNECTION_STRING|CREDENTIAL")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object lies: ``s3``, ``gs`` or ``az``; the bucket or container; the object's name in it."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        """As users write it."""
        return f"{self.scheme}://{self.bucket}/{self.key}"


class Taken(Exception):  # noqa: N818 (an answer, on which the caller decides)
    """A conditional PUT found another content than it expected."""


class _Counts:
    """Requests of this process by kind; retries, which the library makes by itself, are not among them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self._counts.update(counts)

    def take(self) -> dict[str, int]:
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(sorted(counts.items()))


_COUNTS = _Counts()


def count(kind: str, number: int = 1) -> None:
    """Note requests of a kind: GET, HEAD, LIST, PUT, DELETE."""
    _COUNTS.add({kind: number})


def take_requests() -> dict[str, int]:
    """Requests by kind that this process has made, or was told of, since this was last called."""
    return _COUNTS.take()


def add_requests(counts: Mapping[str, int]) -> None:
    """Note requests that another process has made for this one."""
    _COUNTS.add(counts)


def tried(address: Address, act: Callable[[Any, Any], Result], quick: bool = False) -> Result:
    """Act on a store; what breaks off while it is read is asked for again, and errors become Python's own."""
    library, errors = _library(address)
    pause = PAUSE
    for left in range(0 if quick else TRIES - 1, -1, -1):
        try:
            return act(library, _store(address.scheme, address.bucket, quick))
        except FileNotFoundError:
            raise FileNotFoundError(2, "No such object", str(address)) from None
        except (errors.PreconditionError, errors.AlreadyExistsError):
            raise Taken(str(address)) from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise PermissionError(13, f"The store refused access: {redacted(str(error))}", str(address)) from None
        except errors.BaseError as error:
            if "status code: 409" in str(error):  # two conditional puts at the same time
                raise Taken(str(address)) from None
            # what the server has answered will not change, unless it was tired
            if not left or re.search(r"status code: 4(?!08|29)\d\d", str(error)):
                raise ConnectionError(5, f"The store gave no answer: {redacted(str(error))}", str(address)) from None
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the last try returns or raises")


def redacted(text: str) -> str:
    """A text without what might be a credential: queries, users in addresses, answers' bodies, secrets in use."""
    first = " ".join(text.split()).partition("Debug source")[0]
    code, message = (re.search(rf"<{name}>([^<]*)</{name}>", first) for name in ("Code", "Message"))
    first = re.sub(r":? *<(\?xml|Error|html|!DOCTYPE).*", "", first, flags=re.IGNORECASE)
    answered = ": ".join(found[1] for found in (code, message) if found)
    first = f"{first}: {answered}" if answered else first
    first = re.sub(r"(\w+://)[^/@\s]*@", r"\1***@", first)
    first = re.sub(r"\?[^\s'\"]*[=&][^\s'\"]*", "?***", first)
    for name, value in os.environ.items():
        if len(value) > 3 and SECRETS.search(name.upper()):
            first = first.replace(value, "***")
    return first.strip()


def _library(address: Address) -> tuple[Any, Any]:
    try:
        return import_module("obstore"), import_module("obstore.exceptions")
    except ModuleNotFoundError:
        raise ConfigError(
            f"{address}: object storage needs the library obstore; install it with: pip install 'cdpipe[cloud]'"
        ) from None


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, quick: bool) -> Any:
    """The library's client for a bucket, which keeps connections open."""
    stores = import_module("obstore.store")
    kind = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}[scheme]
    options = (QUICK_TIMEOUTS if quick else TIMEOUTS) | ({"allow_http": True} if plain_endpoint() else {})
    return getattr(stores, kind)(
        bucket, client_options=options, retry_config=RETRIES | QUICK_RETRIES if quick else RETRIES
    )


def plain_endpoint() -> bool:
    """Whether the environment names an S3 endpoint without encryption, as test servers are."""
    return endpoint().startswith("http://")


def endpoint() -> str:
    """The S3 endpoint that the environment names, if any."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
