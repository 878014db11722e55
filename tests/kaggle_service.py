"""A local server that answers as Kaggle's endpoints do, and breaks off where a test tells it to."""

from __future__ import annotations

import base64
import json
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

TOKEN = "KGAT_0123456789abcdef_secret"
KEY = "legacy_key_0123456789_secret"
USER = "some-lab"


@dataclass
class Upload:
    """A file on its way: what has arrived, of how much."""

    name: str
    length: int
    content: bytearray = field(default_factory=bytearray)

    @property
    def whole(self) -> bool:
        return len(self.content) == self.length


@dataclass
class Service:
    """What the service knows, and its faults.

    ``cut_after``: bytes of a file beyond which every connection is cut, by name; ``put_status``: the answer to an
    upload, by name; ``status``: the answer to a method; ``lose`` are files that a finished dataset does not list;
    ``expired`` are uploads it no longer knows. ``pending``: how often a dataset is still unpacked when asked after.
    """

    datasets: dict[str, dict] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    cut_after: dict[str, int] = field(default_factory=dict)
    put_status: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    lose: set[str] = field(default_factory=set)
    resize: dict[str, int] = field(default_factory=dict)
    expired: bool = False
    pending: int = 0
    unpacks: bool = True
    page: int = 4
    url: str = ""

    def listing(self, ref: str) -> list[dict]:
        found = []
        for upload in self.datasets[ref]["files"]:
            if upload.name.endswith(".zip") and self.unpacks:
                with zipfile.ZipFile(BytesIO(upload.content)) as opened:
                    stem = upload.name.removesuffix(".zip")
                    found += [(f"{stem}/{one.filename}", one.file_size) for one in opened.infolist()]
            else:
                found.append((upload.name, upload.length))
        return [
            {"name": name, "totalBytes": self.resize.get(name, size)} for name, size in found if name not in self.lose
        ]


class Handler(BaseHTTPRequestHandler):
    service: Service

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: dict, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        service = self.service
        method = self.path.rpartition("/")[2]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service.calls[method] += 1
        legacy = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if method == "IntrospectToken":
            known = asked["token"] == TOKEN
            return self.answer({"active": known, "username": USER if known else ""})
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", legacy):
            return self.answer({"code": 401, "message": "Unauthenticated"}, 401)
        if method in service.status:
            return self.answer({"code": service.status[method], "message": "fault"}, service.status[method])
        return getattr(self, method)(asked)

    def StartBlobUpload(self, asked: dict) -> None:
        token = f"blob-{len(self.service.uploads)}"
        self.service.uploads[token] = Upload(asked["name"], int(asked["contentLength"]))
        self.answer({"token": token, "createUrl": f"{self.service.url}/upload/{token}?signature=signed-secret"})

    def do_PUT(self) -> None:
        service = self.service
        upload = service.uploads.get(self.path.partition("?")[0].rpartition("/")[2])
        length = int(self.headers.get("Content-Length") or 0)
        span = self.headers.get("Content-Range", "")
        service.calls["PUT"] += 1
        if upload is None or (service.expired and span):
            self.rfile.read(length)
            return self.answer({}, 404)
        if span.startswith("bytes */"):
            if upload.whole:
                return self.answer({}, 200)
            arrived = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
            return self.answer({}, 308, **arrived)
        if upload.name in service.put_status:
            self.rfile.read(length)
            return self.answer({}, service.put_status[upload.name])
        begin = int(span.removeprefix("bytes ").partition("-")[0]) if span else 0
        if begin > len(upload.content):
            self.rfile.read(length)
            return self.answer({}, 400)
        del upload.content[begin:]
        limit = service.cut_after.get(upload.name)
        if limit is not None:
            got = self.rfile.read(max(0, min(length, limit - begin)))
            upload.content += got
            service.received[upload.name] += len(got)
            self.close_connection = True
            self.connection.close()
            return None
        got = self.rfile.read(length)
        upload.content += got
        service.received[upload.name] += len(got)
        return self.answer({}, 200 if upload.whole else 400)

    def CreateDataset(self, asked: dict) -> None:
        ref = f"{asked['ownerSlug']}/{asked['slug']}"
        self.make(
            ref,
            asked["files"],
            {"private": asked.get("isPrivate", False), "licence": asked["licenseName"], "version": 1},
        )

    def CreateDatasetVersion(self, asked: dict) -> None:
        ref = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
        before = self.service.datasets[ref]
        self.make(ref, asked["body"]["files"], {**before, "version": before["version"] + 1})

    def make(self, ref: str, files: list[dict], facts: dict) -> None:
        sent = [self.service.uploads[file["token"]] for file in files]
        if not all(upload.whole for upload in sent):
            return self.answer({"status": "error", "error": "a file is incomplete"})
        self.service.datasets[ref] = {**facts, "files": sent}
        return self.answer({"status": "ok", "url": f"https://www.kaggle.com/datasets/{ref}", "invalidTags": []})

    def found(self, asked: dict) -> dict | None:
        ref = f"{asked['ownerSlug']}/{asked['datasetSlug']}"
        if ref not in self.service.datasets:
            self.answer({"code": 404, "message": "not found"}, 404)
            return None
        return self.service.datasets[ref]

    def GetDatasetStatus(self, asked: dict) -> None:
        if self.found(asked):
            self.service.pending -= 1
            self.answer({"status": "READY" if self.service.pending < 0 else "BLOBS_RECEIVED"})

    def GetDataset(self, asked: dict) -> None:
        if dataset := self.found(asked):
            self.answer({"currentVersionNumber": dataset["version"]})

    def ListDatasetFiles(self, asked: dict) -> None:
        if self.found(asked):
            files = self.service.listing(f"{asked['ownerSlug']}/{asked['datasetSlug']}")
            start = int(asked.get("pageToken") or 0)
            end = start + self.service.page
            self.answer({"datasetFiles": files[start:end], "nextPageToken": str(end) if end < len(files) else ""})


def start(service: Service) -> ThreadingHTTPServer:
    """Serve on a free port of this machine; ``service.url`` says where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"service": service}))
    service.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
