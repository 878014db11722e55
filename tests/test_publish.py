"""Publishing, against a local server that stands for Kaggle's endpoints: what is sent, what breaks, what is said."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from db.workspace import open_workspace
from exports.builds import freeze
from exports.options import ExportOptions
from exports.publishing import PublishError, UploadPlan, plan_upload, publish, verify
from exports.publishing.kaggle_api import NoToken, ServiceFailed
from exports.publishing.sending import NotWhatWasSent, StillProcessing
from exports.registry import export_build
from exports.rules import PRESETS
from tests.conftest import ROOT
from tests.kaggle_service import KEY, TOKEN, USER, Service, start
from tests.test_builds import make_small

REF = f"{USER}/imagenet-bg-v1"
SENT = {"README.md", "SHA256SUMS", "build.json", "croissant.json", "images.zip", "images_s.txt", "metadata.csv"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    small = make_small(open_workspace(tmp_path_factory.mktemp("publish") / "workspace"))
    freeze(small.workspace, "bg", PRESETS["bg"])
    return export_build(
        small.workspace, "bg", "kaggle", tmp_path_factory.mktemp("out"), options=ExportOptions(owner=USER)
    ).path


@pytest.fixture(scope="module")
def plan(archive) -> UploadPlan:
    return plan_upload(archive)


@pytest.fixture
def service(tmp_path, monkeypatch) -> Iterator[Service]:
    """The server, the environment pointed at it with a token, and waits that do not wait."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setattr("tempfile.tempdir", str(home))
    known = Service()
    server = start(known)
    from exports.publishing.kaggle_api import package

    environment = importlib.import_module("kagglesdk.kaggle_env")
    monkeypatch.setitem(environment._env_to_endpoint, environment.KaggleEnv.TEST, known.url)
    monkeypatch.setattr(package().KaggleApi, "config", str(home / "kaggle.json"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield known
    server.shutdown()
    server.server_close()


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def sent(service: Service) -> dict[str, str]:
    return {one.name: hashlib.sha256(one.content).hexdigest() for one in service.datasets[REF]["files"]}


# ---- what would be sent ----


def test_the_plan_names_every_file_and_where_it_goes(archive, plan):
    assert (plan.ref, plan.licence, plan.images) == (REF, "other", 3)
    assert {file.name: file.bytes for file in plan.files} == {name: (archive / name).stat().st_size for name in SENT}
    assert plan.kept == ("dataset-cover-image.png", "dataset-metadata.json")
    inside = next(file for file in plan.files if file.name == "images.zip").inside
    assert len(inside) == 3
    assert all(name.startswith("images/n0") for name in inside)


def test_the_command_only_says_what_it_would_do(archive, service, monkeypatch):
    from app.cli import app

    monkeypatch.delenv("KAGGLE_API_TOKEN")
    done = CliRunner().invoke(app, ["publish", "kaggle", str(archive)])
    assert done.exit_code == 0, done.output
    for words in (REF, "private", "other", "images.zip", "Nothing was sent"):
        assert words in done.output
    for name in SENT:
        assert f"{(archive / name).stat().st_size:,}" in done.output
    assert not service.calls


def test_a_folder_that_is_not_in_order_is_not_planned(archive, tmp_path):
    with pytest.raises(PublishError, match=r"has no dataset-metadata\.json"):
        plan_upload(tmp_path)
    folder = Path(shutil.copytree(archive, tmp_path / "damaged"))
    content = bytearray((folder / "images.zip").read_bytes())
    content[200] ^= 1
    (folder / "images.zip").write_bytes(content)
    with pytest.raises(PublishError, match=r"images\.zip: its bytes are not those that were written"):
        plan_upload(folder)
    folder = Path(shutil.copytree(archive, tmp_path / "more"))
    (folder / ".DS_Store").write_bytes(b"x")
    with pytest.raises(PublishError, match="DS_Store: there, but not listed"):
        plan_upload(folder)


def test_an_archive_without_an_owner(tmp_path):
    small = make_small(open_workspace(tmp_path / "workspace"))
    freeze(small.workspace, "bg", PRESETS["bg"])
    with pytest.raises(PublishError, match="export again with --owner"):
        plan_upload(export_build(small.workspace, "bg", "kaggle", tmp_path / "out").path)


# ---- sent ----


def test_a_new_dataset_arrives_private_and_whole(archive, plan, service):
    before = sums(archive)
    done = publish(plan)
    assert done.files == len(SENT) - 1 + 3
    assert REF in done.url
    assert service.datasets[REF]["private"] is True
    assert service.datasets[REF]["licence"] == "other"
    assert sent(service) == {name: before[name] for name in SENT}
    assert sums(archive) == before
    assert verify(plan).files == done.files


def test_the_command_sends_with_yes_and_never_shows_the_token(archive, service):
    from app.cli import app

    done = CliRunner().invoke(app, ["publish", "kaggle", str(archive), "--yes", "--public"])
    assert done.exit_code == 0, done.output
    assert "sending images.zip" in done.output
    assert "is published: all 9 files" in done.output
    assert service.datasets[REF]["private"] is False
    again = CliRunner().invoke(app, ["publish", "kaggle", str(archive), "--verify"])
    assert "all 9 files are listed" in again.output
    assert "secret" not in done.output + again.output


def test_zips_that_are_listed_as_they_are(plan, service):
    service.unpacks = False
    assert publish(plan).files == len(SENT)


def test_a_version_waits_for_itself(plan, service):
    with pytest.raises(PublishError, match="is not there yet"):
        publish(plan, version_notes="more images")
    publish(plan)
    with pytest.raises(PublishError, match="is there already"):
        publish(plan)
    service.pending = 1 + 3  # once before it is sent, then three times until it is unpacked
    publish(plan, version_notes="more images")
    assert service.datasets[REF]["version"] == 2
    assert service.datasets[REF]["private"] is True


def test_a_username_and_key_do_too(plan, service, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert publish(plan).files == 9
    assert service.calls["IntrospectToken"] == 0


# ---- tokens ----


def test_no_token(plan, service, monkeypatch, capfd):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(NoToken, match="There is no Kaggle token"):
        publish(plan)
    assert not service.uploads
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kind", ["token", "key"])
def test_a_token_that_is_not_accepted(plan, service, monkeypatch, kind):
    if kind == "token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", "expired_secret")
    else:
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", "revoked_secret")
    with pytest.raises(NoToken, match="does not accept the token") as refused:
        publish(plan)
    assert "secret" not in str(refused.value)
    assert not service.uploads


def test_a_token_without_the_right(plan, service):
    service.status["StartBlobUpload"] = 403
    with pytest.raises(ServiceFailed, match=r"refuses the upload of .* \(403\)"):
        publish(plan)
    assert REF not in service.datasets


# ---- half-done uploads ----


def test_a_cut_connection_is_gone_on_with_where_it_was_cut(archive, plan, service):
    before = sums(archive)
    size = (archive / "images.zip").stat().st_size
    service.cut_after["images.zip"] = 400
    with pytest.raises(ServiceFailed, match=r"images.zip was cut off .* run the same command again") as cut:
        publish(plan)
    assert "secret" not in str(cut.value)
    assert REF not in service.datasets
    assert sums(archive) == before
    service.cut_after.clear()
    started, arrived = service.calls["StartBlobUpload"], service.received["images.zip"]
    standing = next(len(one.content) for one in service.uploads.values() if one.name == "images.zip")
    assert 0 < standing < size
    publish(plan)
    assert service.received["images.zip"] - arrived == size - standing
    names = [one.name for one in service.uploads.values()]
    assert len(names) == len(set(names)), "no file was begun anew"
    assert service.calls["StartBlobUpload"] - started == len(SENT) - len(set(names[:started]))
    assert sent(service) == {name: before[name] for name in SENT}


def test_an_upload_that_expired_is_begun_anew(plan, service):
    service.cut_after["images.zip"] = 400
    with pytest.raises(ServiceFailed):
        publish(plan)
    service.cut_after.clear()
    service.expired = True
    assert publish(plan).files == 9


@pytest.mark.parametrize("status", [500, 503])
def test_a_file_that_the_service_refuses_is_not_left_out(plan, service, status):
    service.put_status["metadata.csv"] = status
    with pytest.raises(ServiceFailed, match=r"metadata\.csv"):
        publish(plan)
    assert service.calls["CreateDataset"] == 0
    service.put_status.clear()
    assert publish(plan).files == 9


@pytest.mark.parametrize("method", ["StartBlobUpload", "CreateDataset", "ListDatasetFiles"])
def test_a_service_that_fails_says_how_to_go_on(plan, service, method):
    service.status[method] = 502
    with pytest.raises(ServiceFailed, match=r"answered 502 .* Run the same command again"):
        publish(plan)
    service.status.clear()
    if method == "ListDatasetFiles":
        assert verify(plan).files == 9
    else:
        assert publish(plan).files == 9


def test_a_service_that_cannot_be_reached(plan, service, monkeypatch):
    environment = importlib.import_module("kagglesdk.kaggle_env")
    monkeypatch.setitem(environment._env_to_endpoint, environment.KaggleEnv.TEST, "http://127.0.0.1:9")
    with pytest.raises(ServiceFailed, match="cannot be reached"):
        publish(plan)


def test_files_that_did_not_arrive_are_named(plan, service):
    image = sorted(next(file for file in plan.files if file.inside).inside)[0]
    service.lose = {image, "README.md"}
    service.resize = {"metadata.csv": 7}
    with pytest.raises(NotWhatWasSent, match=r"Of 9 files .* lists 7") as mismatch:
        publish(plan)
    for words in (f"{image} is missing", "README.md is missing", "metadata.csv has 7 bytes", "--version NOTES"):
        assert words in str(mismatch.value)
    service.lose, service.resize = set(), {}
    assert publish(plan, version_notes="whole").files == 9


def test_a_dataset_that_is_still_unpacked(plan, service):
    service.pending = 10**6
    with pytest.raises(StillProcessing, match="the same command with --verify"):
        publish(plan, wait_seconds=0)
    service.pending = 0
    assert verify(plan).files == 9


# ---- the package itself ----


def test_importing_the_client_signs_nobody_in():
    code = (
        "import socket\n"
        "def refuse(*_, **__):\n"
        "    raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from exports.publishing.kaggle_api import package\n"
        "print(package().KaggleApi._authenticated)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
