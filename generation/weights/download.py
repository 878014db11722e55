"""One URL into one ``.part`` file, through cut connections and servers that do not keep their word.

What a server says of lengths is only a hint; the manifest's size and sum decide. A ``.part`` is gone on with by a
Range request that is bound (If-Range) to the version it was begun with, where the server names one.
"""

from __future__ import annotations

import errno
import http.client
import json
import random
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from db.files import atomic_write
from generation.weights.errors import DiskFull, DownloadFailed
from generation.weights.manifest import is_safe_url

CHUNK_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 30.0
USER_AGENT = "imagenet-bg-builder"
STATUS_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Opener(Protocol):
    """What :func:`urllib.request.build_opener` gives."""

    def open(self, request: urllib.request.Request, *, timeout: float) -> http.client.HTTPResponse: ...


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait. Seconds; ``sleep`` is called in steps of at most one second.

    ``tries`` bounds the attempts in a row that bring nothing new, ``tries_at_all`` those of one file.
    """

    tries: int = 6
    tries_at_all: int = 1000
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[float, float], float] = field(default=random.uniform)

    def wait(self, failures: int, retry_after: float | None, still_wanted: Callable[[], None]) -> None:
        """Before the next attempt, after ``failures`` (1, 2, ...) in a row; ``still_wanted`` may raise to stop it."""
        seconds = min(self.longest_wait, self.first_wait * 2 ** (failures - 1)) * self.jitter(0.5, 1.5)
        if retry_after is not None:
            seconds = max(seconds, min(retry_after, self.longest_retry_after))
        while seconds > 0:
            still_wanted()
            self.sleep(min(1.0, seconds))
            seconds -= 1.0


class _Interrupted(Exception):
    """An attempt ended early, for a reason that may pass."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, request, response, code, message, headers, new_url):
        before, target = urlsplit(request.full_url), urlsplit(new_url)
        if not is_safe_url(new_url) or (before.scheme == "https" and target.scheme != "https"):
            raise DownloadFailed(
                f"{request.full_url} sends on to {target.scheme}://{target.hostname}, which is not https. "
                "Nothing was taken from there."
            )
        return super().redirect_request(request, response, code, message, headers, new_url)


def default_opener() -> urllib.request.OpenerDirector:
    """Goes through the proxies of http_proxy, https_proxy and no_proxy; follows redirects to https only."""
    return urllib.request.build_opener(_SafeRedirects())


@dataclass(frozen=True)
class _Version:
    """What the server called the version that a ``.part`` was begun with; kept beside it."""

    url: str
    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, url: str, headers: http.client.HTTPMessage) -> _Version:
        return cls(url, headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """For If-Range, which takes no weak ETag."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def contradicts(self, other: _Version) -> bool:
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.last_modified and other.last_modified and self.last_modified != other.last_modified)


def version_file(part: Path) -> Path:
    """Beside ``part``: what is known of the version it was begun with."""
    return part.with_name(f"{part.name}.json")


def discard(part: Path) -> None:
    """Forget a download that was begun."""
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def download(
    url: str,
    part: Path,
    *,
    size: int | None,
    has_sum: bool,
    opener: Opener,
    patience: Patience,
    progress: Callable[[int], None],
) -> bool:
    """Bring ``url`` into ``part`` until all ``size`` bytes are there; the caller compares the sum.

    ``size`` None: as many as the server says. ``has_sum`` False: bytes of an earlier call are gone on with only if
    the server can tell that they are of the same version. ``progress`` is given the bytes that are there and
    may raise to stop. Returns whether bytes of an earlier attempt are in it.

    Raises :class:`DownloadFailed` when it is no use to go on, :class:`DiskFull`, and whatever ``progress`` raises; in
    each case the ``.part`` is kept for the next call.
    """
    return _Download(url, part, size, has_sum, opener, patience, progress).run()


class _Download:
    def __init__(
        self,
        url: str,
        part: Path,
        size: int | None,
        has_sum: bool,
        opener: Opener,
        patience: Patience,
        progress: Callable[[int], None],
    ) -> None:
        self._url, self._part, self._size = url, part, size
        self._opener, self._patience, self._progress = opener, patience, progress
        version, have = self._read_version(), self._have()
        foreign = version.url != url or (not has_sum and version.validator is None)
        if have and (foreign or (size is not None and have > size)):
            discard(part)
        self._resumed = self._have() > 0

    def run(self) -> bool:
        failures, most = 0, self._have()
        for _ in range(self._patience.tries_at_all):
            self._progress(self._have())
            if self._size is not None and self._have() == self._size:
                return self._resumed
            try:
                self._attempt()
                return self._resumed
            except _Interrupted as interruption:
                failures = 1 if self._have() > most else failures + 1
                most = max(most, self._have())
                if failures >= self._patience.tries:
                    raise DownloadFailed(self._gave_up(failures, interruption)) from interruption
                self._patience.wait(failures, interruption.retry_after, lambda: self._progress(self._have()))
        raise DownloadFailed(f"{self._url} was cut off {self._patience.tries_at_all} times. {self._kept()}")

    def _attempt(self) -> None:
        """One request. Returns when the file is whole; otherwise raises :class:`_Interrupted` or what ends it all."""
        have, version = self._have(), self._read_version()
        request = urllib.request.Request(self._url, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if version.validator:
                request.add_header("If-Range", version.validator)
        with self._open(request) as response:
            self._refuse_web_page(response)
            now = _Version.of(self._url, response.headers)
            length = _content_length(response)
            start, total = 0, length
            if response.status == 206:
                start, total = _content_range(response)
                if start != have or now.contradicts(version):
                    discard(self._part)
                    raise _Interrupted("the server went on with another version of the file")
            elif response.status != 200:
                raise _Interrupted(f"the server answered {response.status}")
            if start == 0:
                atomic_write(version_file(self._part), json.dumps(asdict(now)).encode())
            self._resumed = start > 0
            self._receive(response, start, None if length is None else start + length)
        wanted = self._size if self._size is not None else total
        if wanted is not None and self._have() < wanted:
            announced = "" if total in (None, wanted) else f" (the server announces {total:,} in all)"
            raise _Interrupted(f"the connection ended after {self._have():,} of {wanted:,} bytes{announced}")

    def _receive(self, response: http.client.HTTPResponse, start: int, end: int | None) -> None:
        """Append what comes up to the end that the server announced, but no more than the size."""
        have, stop = start, min(self._size or end or sys.maxsize, end or sys.maxsize)
        with self._part.open("ab" if start else "wb", buffering=0) as handle:
            while have < stop:
                chunk = _read(response, min(CHUNK_BYTES, stop - have))
                if not chunk:
                    break
                _append(handle, chunk, self._part)
                have += len(chunk)
                self._progress(have)

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            return self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise self._judged(error) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadFailed(
                    f"{self._url}: the server's certificate is not trusted ({error.reason.verify_message}). Behind a "
                    "proxy that opens connections, point SSL_CERT_FILE at its certificate."
                ) from error
            raise _Interrupted(f"no connection: {error.reason}") from error
        except (http.client.HTTPException, OSError) as error:
            raise _Interrupted(f"no connection: {error or type(error).__name__}") from error

    def _judged(self, error: urllib.error.HTTPError) -> Exception:
        """:class:`_Interrupted` for what may pass, :class:`DownloadFailed` for what will not."""
        if error.code == 416:
            discard(self._part)
            return _Interrupted("the server has no bytes beyond those that came before")
        reason = f"the server answered {error.code} {error.reason}".rstrip()
        if error.code in STATUS_WORTH_RETRYING:
            return _Interrupted(reason, _retry_after(error.headers.get("Retry-After")))
        return DownloadFailed(f"{self._url}: {reason}. Trying again would not help. {_BRING}")

    def _refuse_web_page(self, response: http.client.HTTPResponse) -> None:
        if response.headers.get_content_type() == "text/html":
            raise DownloadFailed(
                f"{self._url}: a web page came instead of the file; a proxy or network that asks for a log-in "
                f"does that. {_BRING}"
            )

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _read_version(self) -> _Version:
        try:
            return _Version(**json.loads(version_file(self._part).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return _Version(self._url)

    def _gave_up(self, failures: int, last: _Interrupted) -> str:
        return f"{self._url}: gave up after {failures} attempts in a row brought nothing new; {last}. {self._kept()}"

    def _kept(self) -> str:
        have = self._have()
        kept = f"{have:,} bytes are kept, and the same command goes on from there. " if have else ""
        return f"{kept}{_BRING}"


_BRING = "The file can also be brought from another machine: `--from DIR`."


def _append(handle: BinaryIO, chunk: bytes, part: Path) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[handle.write(rest) :]
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DiskFull(
                f"There is no room left for {part}: {error.strerror}. What has come is kept; make room, or put "
                "IMAGENET_BG_WEIGHTS on another disk, and run the same command."
            ) from error
        raise


def _read(response: http.client.HTTPResponse, amount: int) -> bytes:
    try:
        return response.read1(amount)
    except (http.client.HTTPException, OSError) as error:
        raise _Interrupted(f"the connection broke: {error or type(error).__name__}") from error


def _content_length(response: http.client.HTTPResponse) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _content_range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """First byte and total of a 206; -1 where the header makes no sense."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which is a number or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
