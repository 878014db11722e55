"""Annotators at once against a running server, each with an account's session and a kept connection of their own.

They do what the page does: take a page of the queue under lease, post one decision after the other, take the next page
before the last is used up, and at a person's pace also fetch the three images of a candidate to come. Run in a process
of their own, so that the time they take is not counted as the server's.
"""

from __future__ import annotations

import http.client
import json
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

PAGE = 60
REFILL_BELOW = 25
LATE_SHARE = 1 / 6  # of the time, at a person's pace: people do not all begin at the same instant
DECISION_SHARES = (("accept", 0.70), ("reject", 0.22), ("skip", 0.04), ("undo", 0.04))


@dataclass(frozen=True)
class Plan:
    """``cookies`` has a session for each annotator; ``pause_s`` is the mean time between two decisions of one."""

    url: str
    cookies: list[str]
    seconds: float
    pause_s: float
    seed: int


@dataclass(frozen=True)
class Measured:
    """Milliseconds of every decision and queue request, as the clients saw them; how many decisions were stored."""

    decision_ms: list[float]
    queue_ms: list[float]
    stored: int
    seconds: float


def run(plan: Plan) -> Measured:
    """All annotators at once until the time is over. Raises RuntimeError for any answer that is not as it should be."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(len(plan.cookies)) as pool:
        clients = [_Client(plan, number) for number in range(len(plan.cookies))]
        for done in [pool.submit(client.work, begun + plan.seconds) for client in clients]:
            done.result()
    return Measured(
        [value for client in clients for value in client.decision_ms],
        [value for client in clients for value in client.queue_ms],
        sum(client.stored for client in clients),
        time.perf_counter() - begun,
    )


class _Client:
    def __init__(self, plan: Plan, number: int) -> None:
        self._plan = plan
        self._headers = {"Cookie": plan.cookies[number]}
        self._tab = f"client-{number}-{plan.seed}"
        self._draw = random.Random(1000 * plan.seed + number)
        self._connection = http.client.HTTPConnection(urlsplit(plan.url).netloc, timeout=60)
        self._cursor: str | None = None
        self._items: list[dict] = []
        self.decision_ms: list[float] = []
        self.queue_ms: list[float] = []
        self.stored = 0

    def work(self, until: float) -> None:
        if self._plan.pause_s:
            time.sleep(self._draw.uniform(0, LATE_SHARE) * self._plan.seconds)
        while time.perf_counter() < until:
            if self._plan.pause_s:
                time.sleep(self._draw.uniform(0.5, 1.5) * self._plan.pause_s)
            if len(self._items) < REFILL_BELOW:
                self._take_page()
            if not self._items:
                return
            self._decide(self._items.pop(0))
            if self._plan.pause_s and self._items:
                coming = self._items[min(10, len(self._items) - 1)]
                for name in ("source", "mask", "result"):
                    self._send("GET", coming["urls"][name])
        self._connection.close()

    def _take_page(self) -> None:
        more = "" if self._cursor is None else f"&cursor={self._cursor}"
        begun = time.perf_counter()
        page = json.loads(self._send("GET", f"/api/review/queue?limit={PAGE}&tab={self._tab}{more}"))
        self.queue_ms.append(1000 * (time.perf_counter() - begun))
        self._items += page["items"]
        self._cursor = page["cursor"] or self._cursor

    def _decide(self, item: dict) -> None:
        names, weights = zip(*DECISION_SHARES, strict=True)
        verdict = self._draw.choices(names, weights)[0] if self.stored else "accept"
        event: dict = {"uuid": str(uuid.UUID(int=self._draw.getrandbits(128), version=4)), "verdict": verdict}
        if verdict != "undo":
            event |= {"candidate_id": item["id"], "result_sha256": item["sha256"], "elapsed_ms": 400}
        if verdict == "reject":
            event["reasons"] = ["object_left"]
        body = json.dumps({"events": [event]})
        begun = time.perf_counter()
        (answer,) = json.loads(self._send("POST", "/api/review/decisions", body))
        self.decision_ms.append(1000 * (time.perf_counter() - begun))
        if answer["status"] != "stored":
            raise RuntimeError(f"A decision was not stored: {answer}")
        self.stored += 1

    def _send(self, method: str, address: str, body: str | None = None) -> bytes:
        headers = self._headers if body is None else self._headers | {"Content-Type": "application/json"}
        self._connection.request(method, address, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {address} was answered with {response.status}: {content[:200]!r}")
        return content
