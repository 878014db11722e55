"""Guessing made slow: after some free tries each further one has to wait twice as long as the one before."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

FORGOTTEN_AFTER_SECONDS = 15 * 60
CAPACITY = 20_000


@dataclass
class _Record:
    failures: int
    last: float
    previous: float


class Throttle:
    """Failed tries by key, in memory: a restart forgets them, and they are few. Safe to use from several threads.

    The n-th failure beyond ``free`` closes the key for ``min(2 ** (n - 1), longest)`` seconds. A key is
    forgotten a quarter of an hour after its last failure. ``clock`` gives seconds.
    """

    def __init__(self, free: int, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._free = free
        self._longest = longest
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._lock = threading.Lock()

    def begin(self, key: str) -> float:
        """Start a try: 0.0 when it may go on, else the seconds to wait first.

        A try counts as a failure from its start, so that many at once wait like one after another.
        """
        with self._lock:
            now = self._clock()
            record = self._records.get(key)
            if record is None or now - record.last > FORGOTTEN_AFTER_SECONDS:
                record = _Record(0, now, now)
            beyond = record.failures - self._free
            if beyond > 0:
                wait = record.last + min(2.0 ** min(beyond - 1, 60), self._longest) - now
                if wait > 0:
                    return wait
            self._make_room(now)
            self._records[key] = _Record(record.failures + 1, now, record.last)
            return 0.0

    def take_back(self, key: str) -> None:
        """The try that was begun was not a failure."""
        with self._lock:
            record = self._records.get(key)
            if record is not None:
                record.failures, record.last = record.failures - 1, record.previous

    def clear(self, key: str) -> None:
        """Forget the key's failures."""
        with self._lock:
            self._records.pop(key, None)

    def _make_room(self, now: float) -> None:
        if len(self._records) < CAPACITY:
            return
        fresh = {key: r for key, r in self._records.items() if now - r.last <= FORGOTTEN_AFTER_SECONDS}
        newest = sorted(fresh, key=lambda key: fresh[key].last)[-CAPACITY // 2 :]
        self._records = {key: fresh[key] for key in newest}


def address_key(address: str) -> str:
    """The key of a client's address: IPv6 counts by its /64, which one customer has to themselves."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)
