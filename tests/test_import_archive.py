"""Archives taken in again: what comes back, what is left out by name, and what is refused whole."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import func, select

from app.jobs import find_handler
from app.media_routes import media_router
from app.review_routes import review_router
from db.files import sha256_file
from db.models import Candidate, Outcome, Recipe
from db.progress import Cancelled, NoProgress
from db.queries import active_recipe, ensure_user, is_imported
from db.workspace import Workspace, open_workspace
from exports import opened
from exports.builds import freeze
from exports.incoming import ArchiveRefused
from exports.members import METADATA_COLUMNS
from exports.opened import ArchiveDamaged
from exports.options import ExportOptions
from exports.registry import export_build
from exports.rules import PRESETS
from generation.backends import load_backends
from generation.correction import CorrectionRefused, correct_mask
from generation.imported import ImportRefused
from generation.pipeline import generate
from generation.pseudo_ood.recipes import UnknownRecipe, background_recipe
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from review.queue import items_by_id
from tests.conftest import ROOT
from tests.test_export_imagefolder import extract

NAMES = [
    "n01440764/ILSVRC2012_val_00000293.JPEG",
    "n01440764/ILSVRC2012_val_00002138.JPEG",
    "n01443537/ILSVRC2012_val_00000236.JPEG",
    "n01443537/odd name.v2.JPEG",
    "n01440764/twice.JPEG",
    "n01443537/twice.JPEG",
]
LOST = {"recipe_hash"}
"""The one column of metadata.csv that another workspace cannot give again: its recipe is the import."""


def write_photos(root: Path) -> Path:
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 80), Image.Resampling.BICUBIC).save(root / name, "JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos) -> Workspace:
    """Six candidates by the test backends, one of them made again with a corrected mask, frozen as bg."""
    workspace = open_workspace(tmp_path_factory.mktemp("made") / "workspace")
    import_images(workspace, ImportSpec("imagefolder", photos))
    options = RecipeOptions("noop", "noop", "noop", resolution="native", dilation=4)
    backends = load_backends(options)
    generate(workspace, options, backends=backends)
    with workspace.read() as session:
        first = session.scalar(select(Candidate).order_by(Candidate.id))
    mask = np.zeros((first.height, first.width), np.uint8)
    mask[10:40, 20:50] = 255
    correct_mask(workspace, first.id, mask, backends, corrected_by="Ada")
    freeze(workspace, "bg", PRESETS["bg"])
    return workspace


@pytest.fixture(scope="module")
def archive(made, tmp_path_factory) -> Path:
    return export_build(made, "bg", "imagefolder", tmp_path_factory.mktemp("archive")).path


@pytest.fixture(scope="module")
def coco(made, tmp_path_factory) -> Path:
    return export_build(made, "bg", "coco", tmp_path_factory.mktemp("coco")).path


@pytest.fixture
def fresh(tmp_path, photos) -> Iterator[Workspace]:
    """Another workspace with the same photos."""
    workspace = open_workspace(tmp_path / "fresh")
    import_images(workspace, ImportSpec("imagefolder", photos))
    yield workspace
    workspace.close()


def take_in(workspace: Workspace, path: Path, progress=None, **params) -> dict:
    params = {"path": str(path), "scorer": "noop", **params}
    return find_handler("import_archive")(workspace, params, progress or NoProgress())


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "metadata.csv").read_text(encoding="utf-8"))))


def counted(workspace: Workspace) -> tuple[int, int, int]:
    with workspace.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(one)) for one in (Recipe, Candidate, Outcome))


def candidates(workspace: Workspace) -> list[Candidate]:
    with workspace.read() as session:
        return list(session.scalars(select(Candidate).order_by(Candidate.id)))


# ---- there and back ----


@pytest.mark.parametrize("format", ["imagefolder", "kaggle", "openood", "huggingface", "webdataset"])
def test_a_round_trip_loses_nothing(made, archive, fresh, tmp_path, monkeypatch, format):
    monkeypatch.setattr("exports.zip_parts._OVERHEAD_BYTES", 300_000)  # several zips
    path = export_build(made, "bg", format, tmp_path / "out", options=ExportOptions(part_bytes=1 << 20)).path
    result = take_in(fresh, path)
    assert (result["found"], result["added"], result["unmatched"]) == (6, 6, [])
    again = take_in(fresh, path)
    assert (again["added"], again["already_there"], again["recipe_hash"]) == (0, 6, result["recipe_hash"])
    assert counted(fresh) == (1, 6, 6)
    freeze(fresh, "bg", PRESETS["bg"])
    before = extract(archive, tmp_path / "before")
    after = extract(export_build(fresh, "bg", "imagefolder", tmp_path / "again").path, tmp_path / "after")
    for one, other in zip(rows(before), rows(after), strict=True):
        assert {column for column in METADATA_COLUMNS if one[column] != other[column]} == LOST
        assert (before / one["file_name"]).read_bytes() == (after / other["file_name"]).read_bytes()
    hashes = [json.loads((folder / "build.json").read_text())["content_hash"] for folder in (before, after)]
    assert hashes[0] == hashes[1]
    assert "imported from an archive" in (after / "README.md").read_text()


def test_an_extracted_archive_and_its_zip_are_one_import(archive, fresh, tmp_path):
    first = take_in(fresh, extract(archive, tmp_path / "x"))
    second = take_in(fresh, archive)
    assert (first["added"], second["added"]) == (6, 0)
    assert first["recipe_hash"] == second["recipe_hash"]


def test_a_set_as_kaggle_hands_it_out(made, fresh, tmp_path):
    """Its zips unpacked, without what only the service reads."""
    folder = export_build(made, "bg", "kaggle", tmp_path).path
    for name in ("dataset-metadata.json", "dataset-cover-image.png"):
        (folder / name).unlink()
    with zipfile.ZipFile(folder / "images.zip") as images:
        images.extractall(folder / "images")
    (folder / "images.zip").unlink()
    assert take_in(fresh, folder)["added"] == 6
    image = folder / "images/n01440764/ILSVRC2012_val_00000293.png"
    Image.new("RGB", (96, 80)).save(image)
    with pytest.raises(ArchiveRefused, match=r"not the image that metadata\.csv names"):
        take_in(fresh, folder)
    image.unlink()
    with pytest.raises(ArchiveRefused, match=r"has no images/n01440764/ILSVRC2012_val_00000293\.png"):
        take_in(fresh, folder)


def test_what_the_archive_records_stays_with_the_candidate(made, archive, fresh, tmp_path):
    take_in(fresh, archive)
    with fresh.read() as session:
        recipe = active_recipe(session)
    with made.read() as session:
        original = session.scalar(select(Recipe))
    assert is_imported(recipe)
    assert recipe.config["archive"]["recipe_hash"] == original.hash
    assert (recipe.config["options"], recipe.config["backends"]) == (
        original.config["options"],
        original.config["backends"],
    )
    table = {row["source_name"]: row for row in rows(extract(archive, tmp_path / "x"))}
    for candidate in candidates(fresh):
        imported = candidate.details["imported"]
        row = table[imported["recorded"]["source_name"]]
        assert imported["recorded"] == row
        assert (candidate.drop, candidate.area) == (float(row["drop"]), float(row["area"]))
        assert set(imported["unknown"]) == {"logit_source", "logit_candidate", "top5", "boxes"}
        assert candidate.phash == row["phash"]
        folder = fresh.root / candidate.folder
        assert sha256_file(folder / "result.png") == row["result_sha256"]
        assert not (folder / "mask.png").exists()
        with Image.open(folder / "raw.png") as raw, Image.open(folder / "thumbnail.jpg") as thumbnail:
            assert raw.size == (96, 80)
            assert thumbnail.format == "JPEG"
    assert {candidate.version for candidate in candidates(fresh)} == {1, 2}


def test_jpegs_keep_their_pixels_and_their_file(made, fresh, tmp_path):
    path = export_build(made, "bg", "imagefolder", tmp_path, options=ExportOptions(images="jpeg", quality=90)).path
    assert take_in(fresh, path)["added"] == 6
    folder = extract(path, tmp_path / "x")
    for candidate in candidates(fresh):
        jpeg = (folder / candidate.details["imported"]["recorded"]["file_name"]).read_bytes()
        assert (fresh.root / candidate.folder / "archived.jpg").read_bytes() == jpeg
        with Image.open(io.BytesIO(jpeg)) as image, Image.open(fresh.root / candidate.folder / "result.png") as png:
            assert np.array_equal(np.asarray(image), np.asarray(png))


def test_the_id_side_is_no_candidate(made, fresh, tmp_path):
    path = export_build(made, "bg", "imagefolder", tmp_path, options=ExportOptions(id_side=True)).path
    with pytest.raises(ArchiveRefused, match="holds the ID side"):
        take_in(fresh, path)


@pytest.mark.parametrize("at_once", [True, False])
def test_masks_come_from_the_coco_archive(archive, coco, fresh, tmp_path, at_once):
    if not at_once:
        assert take_in(fresh, archive)["masks"] == 0
    assert take_in(fresh, archive, masks=str(coco))["masks"] == 6
    assert take_in(fresh, archive, masks=str(coco))["masks"] == 0
    assert counted(fresh)[1] == 6
    freeze(fresh, "bg", PRESETS["bg"])
    again = export_build(fresh, "bg", "coco", tmp_path / "again").path
    found = []
    for path, name in ((coco, "one"), (again, "other")):
        text = (extract(path, tmp_path / name) / "annotations/instances_bg.json").read_text()
        found.append({key: value for key, value in json.loads(text).items() if key != "info"})
    assert found[0] == found[1]


def test_masks_of_another_build_are_refused(archive, fresh, tmp_path):
    other = open_workspace(tmp_path / "other")
    import_images(other, ImportSpec("imagefolder", write_photos(tmp_path / "photos")))
    options = RecipeOptions("noop", "noop", "noop")
    generate(other, options, backends=load_backends(options))
    freeze(other, "bg", PRESETS["bg"])
    masks = export_build(other, "bg", "coco", tmp_path / "masks").path
    with pytest.raises(ArchiveRefused, match="masks of another build"):
        take_in(fresh, archive, masks=str(masks))
    with pytest.raises(ArchiveRefused, match="give it with --masks"):
        take_in(fresh, masks)
    assert counted(fresh) == (0, 0, 0)


# ---- the published layout ----


def published(root: Path, *, flat: bool = False, real_jpeg: bool = False) -> Path:
    """Images named by their val photo, called .JPEG whatever they are, as published sets often are."""
    for number, name in enumerate(NAMES[:3]):
        place = root / (Path(name).name if flat else name)
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(100 + number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place, "JPEG" if real_jpeg else "PNG")
    return root


@pytest.mark.parametrize("flat", [True, False])
def test_published_images_are_matched_by_val_number_and_scored_here(fresh, tmp_path, flat):
    folder = published(tmp_path / "set", flat=flat)
    result = take_in(fresh, folder)
    assert (result["added"], result["scored"], result["unmatched"]) == (3, 3, [])
    with fresh.read() as session:
        recipe = active_recipe(session)
        names = {name.rpartition("/")[2] for name in session.scalars(select(Candidate.details["imported"]["file"]))}
    assert recipe.config["backends"]["scorer"]["name"] == "noop"
    assert names == {Path(name).name for name in NAMES[:3]}
    for candidate in candidates(fresh):
        imported = candidate.details["imported"]
        assert set(imported["unknown"]) == {"boxes", "area", "dilated_area"}
        assert candidate.drop == pytest.approx(candidate.logit_source - candidate.logit_candidate)
        assert candidate.top5 or candidate.rank >= 1
        path = fresh.root / candidate.folder
        assert (path / "result.png").read_bytes() == (folder / imported["file"]).read_bytes()
        with Image.open(path / "raw.png") as raw:
            assert raw.size == (32, 32)
    assert take_in(fresh, folder)["added"] == 0


def test_the_same_published_set_zipped_flat_or_in_folders_is_one_import(fresh, tmp_path):
    take_in(fresh, published(tmp_path / "folders", real_jpeg=True))
    flat = published(tmp_path / "flat", flat=True, real_jpeg=True)
    zipped = shutil.make_archive(str(tmp_path / "set"), "zip", flat)
    assert take_in(fresh, Path(zipped))["already_there"] == 3


def test_copies_and_second_images_of_a_photo(fresh, tmp_path):
    folder = published(tmp_path / "set")
    shutil.copytree(folder, folder / "Bg(S)")
    second = folder / "other" / Path(NAMES[0]).name
    second.parent.mkdir()
    Image.new("RGB", (32, 32)).save(second, "PNG")
    result = take_in(fresh, folder)
    assert (result["found"], result["added"], result["repeated"]) == (7, 3, 3)
    (left,) = result["unmatched"]
    assert "another image of the same photo" in left["reason"]


def test_a_wrong_label_is_left_out_by_name(fresh, tmp_path):
    folder = published(tmp_path / "set")
    (folder / "n01440764").rename(folder / "n02006656")
    result = take_in(fresh, folder)
    assert result["added"] == 1
    assert {left["file"] for left in result["unmatched"]} == {
        name.replace("01440764", "02006656") for name in NAMES[:2]
    }
    assert all("labels it n02006656" in left["reason"] for left in result["unmatched"])


# ---- photos that are not here ----


def test_images_without_their_photo_are_named_and_come_later(archive, photos, tmp_path):
    workspace = open_workspace(tmp_path / "few")
    some = tmp_path / "photos"
    shutil.copytree(photos / "n01440764", some / "n01440764")
    with pytest.raises(ImportRefused, match="None of the 6 images has its photo"):
        take_in(workspace, archive)
    assert counted(workspace) == (0, 0, 0)
    import_images(workspace, ImportSpec("imagefolder", some))
    result = take_in(workspace, archive)
    assert (result["found"], result["added"], len(result["unmatched"])) == (6, 3, 3)
    assert all("is not in this workspace" in left["reason"] for left in result["unmatched"])
    shutil.copytree(photos / "n01443537", some / "n01443537")
    import_images(workspace, ImportSpec("imagefolder", some))
    result = take_in(workspace, archive)
    assert (result["added"], result["already_there"], result["unmatched"]) == (3, 3, [])
    # A photo of the right name with other bytes is another photo.
    other = open_workspace(tmp_path / "other")
    changed = write_photos(tmp_path / "changed")
    Image.new("RGB", (96, 80)).save(changed / NAMES[0])
    import_images(other, ImportSpec("imagefolder", changed))
    assert [left["file"] for left in take_in(other, archive)["unmatched"]] == [
        "images/n01440764/ILSVRC2012_val_00000293.png"
    ]


def test_a_photo_that_is_gone_from_its_place(archive, tmp_path):
    workspace = open_workspace(tmp_path / "moved")
    root = write_photos(tmp_path / "photos")
    import_images(workspace, ImportSpec("imagefolder", root))
    (root / NAMES[0]).unlink()
    result = take_in(workspace, archive)
    assert result["added"] == 5
    assert "put the imported file back" in result["unmatched"][0]["reason"]


# ---- bad archives ----


def spoil(folder: Path, name: str, content: bytes, *, listed: bool) -> None:
    """Change a file; with ``listed`` SHA256SUMS is changed with it."""
    sums = folder / "SHA256SUMS"
    old = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / name).write_bytes(content)
    if listed:
        sums.write_text(sums.read_text().replace(old, hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize(
    ("content", "listed", "says"),
    [
        (b"\x89PNG\r\n\x1a\n no image", False, "its bytes are not those that were written"),
        (b"\x89PNG\r\n\x1a\n no image", True, "cannot be decoded"),
    ],
)
def test_bad_bytes_are_named_and_nothing_comes_in(archive, fresh, tmp_path, content, listed, says):
    folder = extract(archive, tmp_path / "x")
    name = "images/n01440764/ILSVRC2012_val_00002138.png"
    spoil(folder, name, content, listed=listed)
    with pytest.raises(ArchiveRefused, match="nothing was imported") as refused:
        take_in(fresh, folder)
    assert name in str(refused.value)
    assert says in str(refused.value)
    assert counted(fresh) == (0, 0, 0)


def test_undecodable_published_images_are_all_named(fresh, tmp_path):
    folder = published(tmp_path / "set")
    for name in NAMES[:2]:
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    with pytest.raises(ImportRefused, match="2 of 3 images are bad") as refused:
        take_in(fresh, folder)
    assert all(name in str(refused.value) for name in NAMES[:2])
    assert counted(fresh) == (0, 0, 0)


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("n01440764/ILSVRC2012_val_00000293.png", bytes(30 << 20))


def escape(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("../ILSVRC2012_val_00000293.png", b"x")


def many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        for number in range(20):
            target.writestr(f"{number}.png", b"")


@pytest.mark.parametrize(
    ("make", "says"), [(bomb, "unpack to"), (escape, "leads out of it"), (many, "holds more than 10 files")]
)
def test_hostile_zips_are_refused_unread(fresh, tmp_path, monkeypatch, make, says):
    monkeypatch.setattr(opened, "MAX_FILES", 10)
    make(tmp_path / "bad.zip")
    with pytest.raises(ArchiveDamaged, match=says):
        take_in(fresh, tmp_path / "bad.zip")
    assert counted(fresh) == (0, 0, 0)
    assert not list(fresh.root.glob("candidates/*/*"))


# ---- stopped half-way ----


class StopAt(NoProgress):
    def __init__(self, message: str) -> None:
        self.message = message

    def update(self, done: int, total: int | None, message: str = "") -> None:
        if message == self.message:
            raise Cancelled


def test_a_cancelled_import_shows_nothing_and_goes_on(archive, fresh, monkeypatch):
    with pytest.raises(Cancelled):
        take_in(fresh, archive, StopAt("recording the candidates"))
    assert counted(fresh) == (0, 0, 0)
    folders = {path: path.stat().st_mtime_ns for path in fresh.root.glob("candidates/*/*")}
    assert len(folders) == 6
    assert take_in(fresh, archive)["added"] == 6
    assert {path: path.stat().st_mtime_ns for path in fresh.root.glob("candidates/*/*")} == folders


def test_a_killed_import_goes_on_to_the_same_candidates(archive, fresh):
    code = (
        "import os, signal, sys\n"
        "from app.jobs import find_handler\n"
        "from db.progress import NoProgress\n"
        "from db.workspace import open_workspace\n"
        "from generation.imported import importing\n"
        "importing.SCORE_BATCH = 2\n"
        "written = []\n"
        "def kill_at_third(workspace, item, write=importing.write):\n"
        "    write(workspace, item)\n"
        "    written.append(item)\n"
        "    if len(written) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "importing.write = kill_at_third\n"
        "params = {'path': sys.argv[2], 'scorer': 'noop'}\n"
        "find_handler('import_archive')(open_workspace(sys.argv[1]), params, NoProgress())\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(fresh.root), str(archive)], cwd=ROOT)
    assert killed.returncode == -9
    assert counted(fresh) == (0, 0, 0)
    assert 3 <= len([path for path in fresh.root.glob("candidates/*/*") if not path.name.startswith(".")]) <= 4
    assert take_in(fresh, archive)["added"] == 6
    freeze(fresh, "bg", PRESETS["bg"])


# ---- on the pages ----


def test_the_review_routes_show_a_candidate_without_a_mask(archive, fresh):
    take_in(fresh, archive)
    with fresh.write() as session:
        user = ensure_user(session).id
    app = FastAPI()
    app.include_router(media_router(fresh, lambda: user))
    app.include_router(review_router(fresh, lambda: user))
    client = TestClient(app)
    items = client.get("/api/review/queue").json()["items"]
    assert len(items) == 6
    for item in items:
        assert item["masked"] is False
        assert [client.get(item["urls"][name]).status_code for name in ("source", "result", "thumbnail")] == [200] * 3
        missing = client.get(item["urls"]["mask"])
        assert missing.status_code == 404
        assert missing.json()["error"].endswith(".")
    refused = client.post(f"/api/review/masks/{items[0]['id']}/clicks", json={"clicks": [{"x": 1, "y": 1, "on": True}]})
    assert refused.status_code == 422
    assert "came in an archive" in refused.json()["error"]


def test_an_area_that_nothing_tells_is_not_taken_for_0(archive, fresh, tmp_path):
    take_in(fresh, published(tmp_path / "set"))
    take_in(fresh, archive, activate=False)
    with fresh.read() as session:
        items = items_by_id(session, [candidate.id for candidate in candidates(fresh)], user_id=1)
    assert [item.area is None for item in items] == [True] * 3 + [False] * 6


def test_what_needs_the_recipes_models_refuses_imported_candidates(archive, coco, fresh):
    take_in(fresh, archive, masks=str(coco))
    options = RecipeOptions("noop", "noop", "noop", resolution="native", dilation=4)
    one = candidates(fresh)[0]
    with pytest.raises(CorrectionRefused, match="came in an archive"):
        correct_mask(fresh, one.id, np.ones((80, 96), np.uint8), load_backends(options), corrected_by="Ada")
    with fresh.read() as session, pytest.raises(UnknownRecipe, match="came in an archive"):
        background_recipe(session)


def test_the_command_says_what_came_in(archive, fresh, tmp_path):
    command = [sys.executable, "launch.py", "import-archive", "-w", str(fresh.root), "--no-activate"]
    done = subprocess.run([*command, str(archive)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "6 images: 6 added, 0 there already" in done.stdout
    with fresh.read() as session:
        assert active_recipe(session) is None
    escape(tmp_path / "bad.zip")
    done = subprocess.run([*command, str(tmp_path / "bad.zip")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "leads out of it" in done.stderr
    assert "Traceback" not in done.stderr
