"""Importing photos: every layout, every file that must be refused by name, and stopping and going on."""

import io
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import func, select

from db.models import ImageClass, SourceImage, Split
from db.progress import Cancelled
from db.queries import CLASS_LIST_SHA256, get_meta, set_meta
from db.workspace import Workspace, open_workspace
from generation.classes import load_imagenet_classes
from generation.sources import (
    ImportSpec,
    ImportSummary,
    SourceChanged,
    SourceImportError,
    ensure_class_list,
    import_images,
    importing,
    open_source,
)

CLASSES = load_imagenet_classes()
TENCH, GOLDFISH, SHARK = CLASSES.wnids[:3]


@pytest.fixture
def workspace(tmp_path: Path):
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def photo(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (20, 14)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo(zlib.crc32(str(path).encode())) if content is None else content)
    return path


def rows(workspace: Workspace) -> list[tuple]:
    """Every recorded photo but for its id and time, in the order of recording."""
    with workspace.read() as session:
        return [
            (r.name, r.split, r.root, r.path, r.sha256, r.bytes, r.width, r.height, r.class_index)
            for r in session.scalars(select(SourceImage).order_by(SourceImage.id))
        ]


def names(workspace: Workspace) -> dict[str, str]:
    return {row[3]: row[0] for row in rows(workspace)}


def skipped(summary: ImportSummary) -> dict[str, str]:
    return {item.path: item.code for item in summary.skipped}


def run(workspace: Workspace, folder: Path | None, **changes) -> ImportSummary:
    """Import, and hold the summary to its sum and its form."""
    summary = import_images(workspace, ImportSpec(**({"layout": "imagefolder", "root": folder} | changes)))
    assert summary.added + summary.already_there + len(summary.skipped) == summary.found
    assert all(item.message.endswith(".") for item in summary.skipped)
    as_dict = summary.as_dict()
    assert sum(as_dict["skipped_by_code"].values()) == len(as_dict["skipped"]) == len(summary.skipped)
    return summary


def test_demo_is_twenty_labelled_photos(workspace):
    summary = run(workspace, None, layout="demo")
    assert (summary.found, summary.added) == (20, 20)
    assert all(row[0].endswith(f"_{row[8]}") and row[1] == Split.VAL for row in rows(workspace))
    again = run(workspace, None, layout="demo")
    assert (again.added, again.already_there) == (0, 20)


def test_class_list_is_written_once_and_another_is_refused(workspace, tmp_path):
    run(workspace, None, layout="demo")
    with workspace.write() as session:
        ensure_class_list(session)
        assert session.scalar(select(func.count()).select_from(ImageClass)) == 1000
        assert session.get(ImageClass, 1).wnid == GOLDFISH and session.get(ImageClass, 1).name == "goldfish"
        assert get_meta(session, CLASS_LIST_SHA256) == CLASSES.sha256
        set_meta(session, CLASS_LIST_SHA256, "0" * 64)
    with pytest.raises(SourceImportError, match="another class list"):
        run(workspace, None, layout="demo")
    assert list(CLASSES.wnids) == sorted(CLASSES.wnids), "val.txt and the demo names count in this order"


def test_imagefolder_records_what_is_there(workspace, tmp_path):
    content = photo(1, "PNG", (31, 17))
    put(tmp_path / "val" / GOLDFISH / "a.JPEG", content)
    put(tmp_path / "val" / TENCH / "b.jpg")
    assert run(workspace, tmp_path / "val").added == 2
    assert [row[3] for row in rows(workspace)] == [f"{TENCH}/b.jpg", f"{GOLDFISH}/a.JPEG"]
    name, split, root, _, _, size, width, height, index = rows(workspace)[1]
    assert (name, split, root) == ("a", Split.VAL, str((tmp_path / "val").resolve()))
    assert (size, width, height, index) == (len(content), 31, 17, 1)


def test_upright_size_is_recorded(workspace, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 10)).save(buffer, "JPEG", exif=exif)
    put(tmp_path / "val" / TENCH / "a.JPEG", buffer.getvalue())
    run(workspace, tmp_path / "val")
    assert rows(workspace)[0][6:8] == (10, 30)


def bomb() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + photo(0, "PNG")[33:]
    )


def test_everything_that_is_refused_is_named(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "MAX_BYTES", 100_000)
    root, outside = tmp_path / "val", put(tmp_path / "outside" / "secret.JPEG")
    folder = root / TENCH
    good = put(folder / "good.JPEG")
    (folder / "link_inside.JPEG").symlink_to(good)
    put(folder / "text.JPEG", b"this is not an image")
    put(folder / "empty.JPEG", b"")
    put(folder / "cut.JPEG", good.read_bytes()[:-40])
    put(folder / "bomb.png", bomb())
    put(folder / "big.bmp", photo(0, "BMP", (300, 200)))
    put(folder / "notes.txt", b"x")
    put(folder / "a.xml", b"x")
    put(folder / ".DS_Store", b"x")
    put(folder / "._good.JPEG", good.read_bytes())
    put(folder / "deeper" / "a.JPEG")
    (folder / "link_out.JPEG").symlink_to(outside)
    (folder / "broken.JPEG").symlink_to(folder / "nowhere.JPEG")
    (folder / "loop.JPEG").symlink_to(folder / "loop.JPEG")
    os.mkfifo(folder / "pipe.JPEG")
    put(root / "n99999999" / "x.JPEG")
    put(root / "n99999999" / "y.JPEG")
    put(root / "loose.JPEG")
    put(root / "README.md", b"x")
    (root / GOLDFISH).symlink_to(outside.parent)
    summary = run(workspace, root)
    expected = dict.fromkeys(["text.JPEG", "empty.JPEG", "notes.txt", "a.xml", ".DS_Store"], "not_an_image")
    expected |= dict.fromkeys(["._good.JPEG", "deeper", "broken.JPEG", "loop.JPEG", "pipe.JPEG"], "not_an_image")
    expected |= {"cut.JPEG": "truncated", "bomb.png": "too_many_pixels", "big.bmp": "too_many_bytes"}
    expected |= {"link_out.JPEG": "outside_root"}
    expected = {f"{TENCH}/{name}": code for name, code in expected.items()}
    expected |= {"n99999999/x.JPEG": "unknown_class", "n99999999/y.JPEG": "unknown_class"}
    expected |= {"loose.JPEG": "unknown_class", "README.md": "not_an_image", GOLDFISH: "outside_root"}
    assert skipped(summary) == expected
    assert sorted(names(workspace).values()) == ["good", "link_inside"]
    again = run(workspace, root)
    assert skipped(again) == expected and (again.added, again.already_there) == (0, 2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(workspace, tmp_path):
    put(tmp_path / "val" / TENCH / "a.JPEG").chmod(0)
    assert skipped(run(workspace, tmp_path / "val")) == {f"{TENCH}/a.JPEG": "unreadable"}


def test_a_name_that_is_not_utf8_is_named(workspace, tmp_path):
    folder = tmp_path / "val" / TENCH
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.JPEG")).write_bytes(photo())
    assert skipped(run(workspace, tmp_path / "val")) == {f"{TENCH}/caf\\xe9.JPEG": "bad_name"}


def test_repeated_stems_take_the_class_in_their_name(workspace, tmp_path):
    root = tmp_path / "val"
    for wnid in (TENCH, GOLDFISH):
        put(root / wnid / "1.JPEG")
    put(root / SHARK / "2.JPEG")
    put(root / SHARK / "3.JPEG")
    put(root / SHARK / "3.png", photo(7, "PNG"))
    summary = run(workspace, root)
    assert names(workspace) == {
        f"{TENCH}/1.JPEG": f"{TENCH}/1",
        f"{GOLDFISH}/1.JPEG": f"{GOLDFISH}/1",
        f"{SHARK}/2.JPEG": "2",
        f"{SHARK}/3.JPEG": f"{SHARK}/3",
    }
    assert skipped(summary) == {f"{SHARK}/3.png": "duplicate_name"}
    before = rows(workspace)
    put(root / TENCH / "2.JPEG")
    run(workspace, root)
    assert rows(workspace)[:4] == before and names(workspace)[f"{TENCH}/2.JPEG"] == f"{TENCH}/2"


def test_a_name_taken_by_another_root_gets_its_class(workspace, tmp_path):
    put(tmp_path / "one" / TENCH / "a.JPEG", photo(1))
    put(tmp_path / "two" / TENCH / "a.JPEG", photo(2))
    put(tmp_path / "three" / TENCH / "a.JPEG", photo(3))
    run(workspace, tmp_path / "one")
    run(workspace, tmp_path / "two")
    third = run(workspace, tmp_path / "three")
    assert [row[0] for row in rows(workspace)] == ["a", f"{TENCH}/a"]
    assert skipped(third) == {f"{TENCH}/a.JPEG": "duplicate_name"}


def test_same_bytes_under_another_class_or_name_are_kept(workspace, tmp_path):
    content = photo(5)
    for place in (f"{TENCH}/a.JPEG", f"{TENCH}/b.JPEG", f"{GOLDFISH}/c.JPEG"):
        put(tmp_path / "val" / place, content)
    assert run(workspace, tmp_path / "val").added == 3
    assert len({row[4] for row in rows(workspace)}) == 1


def test_a_moved_folder_adds_nothing_and_moves_nothing(workspace, tmp_path):
    for name in ("a", "b"):
        put(tmp_path / "val" / TENCH / f"{name}.JPEG")
    run(workspace, tmp_path / "val")
    before = rows(workspace)
    shutil.copytree(tmp_path / "val", tmp_path / "copy")
    assert run(workspace, tmp_path / "copy").already_there == 2
    assert rows(workspace) == before


def test_a_root_reached_through_a_link_is_the_same_root(workspace, tmp_path):
    put(tmp_path / "val" / TENCH / "a.JPEG")
    (tmp_path / "link").symlink_to(tmp_path / "val")
    assert run(workspace, tmp_path / "link").added == 1
    assert run(workspace, tmp_path / "val").already_there == 1


def test_changed_file_is_named_and_nothing_is_overwritten(workspace, tmp_path):
    path = put(tmp_path / "val" / TENCH / "a.JPEG", photo(1))
    run(workspace, tmp_path / "val")
    before = rows(workspace)
    path.write_bytes(photo(2))
    assert skipped(run(workspace, tmp_path / "val")) == {f"{TENCH}/a.JPEG": "changed"}
    assert rows(workspace) == before


def test_val_and_train_never_mix(workspace, tmp_path):
    content = photo(1)
    put(tmp_path / "val" / TENCH / "a.JPEG", content)
    put(tmp_path / "train" / GOLDFISH / "other.JPEG", content)
    put(tmp_path / "train" / GOLDFISH / "fresh.JPEG")
    run(workspace, tmp_path / "val")
    assert skipped(run(workspace, tmp_path / "val", split=Split.TRAIN)) == {f"{TENCH}/a.JPEG": "other_split"}
    train = run(workspace, tmp_path / "train", split=Split.TRAIN)
    assert skipped(train) == {f"{GOLDFISH}/other.JPEG": "other_split"} and train.added == 1
    assert {row[3]: row[1] for row in rows(workspace)} == {
        f"{TENCH}/a.JPEG": Split.VAL,
        f"{GOLDFISH}/fresh.JPEG": Split.TRAIN,
    }


class Stops:
    """Progress that is cancelled at its n-th update."""

    def __init__(self, after: int, error: type[BaseException] = Cancelled) -> None:
        self.left, self.error, self.seen = after, error, []

    def update(self, done: int, total: int | None, message: str = "") -> None:
        self.seen.append((done, total))
        self.left -= 1
        if self.left < 0:
            raise self.error

    def log(self, line: str) -> None:
        pass


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory) -> Path:
    """Forty entries: repeated stems, equal bytes, broken files and strangers among good photos."""
    root = tmp_path_factory.mktemp("mixed") / "val"
    draw = random.Random(0)
    for number in range(40):
        wnid = draw.choice([TENCH, GOLDFISH] if number < 23 else [SHARK, "n99999999"])
        kind = draw.choice(["good"] * 5 + ["same", "cut", "text"])
        content = {"good": photo(number), "same": photo(3), "cut": photo(number)[:200], "text": b"text"}[kind]
        put(root / wnid / f"{number % 23}.{draw.choice(['JPEG', 'jpg'])}", content)
    return root


@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt])
@pytest.mark.parametrize("stops", [[0], [1], [9], [20, 13], [39], [5, 5, 5, 40]])
def test_stopped_and_run_again_is_as_if_never_stopped(tmp_path, monkeypatch, mixed_folder, stops, error):
    undisturbed, stopped = open_workspace(tmp_path / "one"), open_workspace(tmp_path / "two")
    whole = run(undisturbed, mixed_folder)
    monkeypatch.setattr(importing, "BATCH_SIZE", 4)
    for after in stops:
        with pytest.raises(error):
            import_images(stopped, ImportSpec("imagefolder", mixed_folder), Stops(after, error))
    rest = run(stopped, mixed_folder)
    assert rows(stopped) == rows(undisturbed)
    assert rest.skipped == whole.skipped and rest.added + rest.already_there == whole.added + whole.already_there
    assert max(stops) < 20 or rest.added < whole.added
    undisturbed.close()
    stopped.close()


def test_a_killed_process_leaves_whole_batches(tmp_path, mixed_folder):
    script = (
        "import os, sys; from pathlib import Path; from db.workspace import open_workspace\n"
        "from generation.sources import ImportSpec, import_images, importing\n"
        "importing.BATCH_SIZE = 4\n"
        "class Kill:\n"
        "    def update(self, done, total, message=''):\n"
        "        if done == 18: os.kill(os.getpid(), 9)\n"
        "    def log(self, line): pass\n"
        "import_images(open_workspace(sys.argv[1]), ImportSpec('imagefolder', Path(sys.argv[2])), Kill())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed"), str(mixed_folder)]
    assert subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode == -9
    killed, undisturbed = open_workspace(tmp_path / "killed"), open_workspace(tmp_path / "one")
    kept = len(rows(killed))
    run(undisturbed, mixed_folder)
    assert 0 < kept < len(rows(undisturbed))
    run(killed, mixed_folder)
    assert rows(killed) == rows(undisturbed)
    killed.close()
    undisturbed.close()


def test_progress_counts_every_entry(workspace, mixed_folder):
    progress = Stops(1000)
    import_images(workspace, ImportSpec("imagefolder", mixed_folder), progress)
    assert progress.seen == [(done, len(progress.seen) - 1) for done in range(len(progress.seen))]


def test_rerun_decodes_nothing(workspace, tmp_path, monkeypatch):
    for name in ("a", "b"):
        put(tmp_path / "val" / TENCH / f"{name}.JPEG")
    run(workspace, tmp_path / "val")

    def refuse(_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(importing, "decode_rgb", refuse)
    assert run(workspace, tmp_path / "val").already_there == 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    entries=st.dictionaries(
        st.tuples(
            st.sampled_from([TENCH, GOLDFISH, "junk", ""]),
            st.sampled_from("abc"),
            st.sampled_from(["JPEG", "png", "txt"]),
        ),
        st.one_of(st.integers(0, 3), st.sampled_from([b"", b"text", photo(9)[:300]])),
        max_size=12,
    ),
    batch=st.integers(1, 5),
)
def test_any_folder_adds_up_and_a_second_import_adds_nothing(tmp_path_factory, entries, batch):
    base = tmp_path_factory.mktemp("any")
    (base / "val").mkdir()
    for (wnid, stem, suffix), content in entries.items():
        put(base / "val" / wnid / f"{stem}.{suffix}", photo(content) if isinstance(content, int) else content)
    workspace, other = open_workspace(base / "workspace"), open_workspace(base / "other")
    first = run(workspace, base / "val")
    assert first.found == len(entries)
    recorded = rows(workspace)
    second = run(workspace, base / "val")
    assert (second.added, second.skipped, rows(workspace)) == (0, first.skipped, recorded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "BATCH_SIZE", batch)
        run(other, base / "val")
    assert rows(other) == recorded
    workspace.close()
    other.close()


VAL = [f"ILSVRC2012_val_{number:08d}" for number in range(1, 7)]
LABELS = [65, 970, 230, 0, 999, 1]
WNIDS = [CLASSES.wnids[label] for label in LABELS]


@pytest.fixture
def flat(tmp_path) -> Path:
    root = tmp_path / "ILSVRC2012_img_val"
    for stem in VAL:
        put(root / f"{stem}.JPEG")
    return root


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_text(end.join(lines) + end, encoding="utf-8")
    return path


PAIRS = list(zip(VAL, LABELS, WNIDS, strict=True))
FORMS = {
    "caffe": [f"{stem}.JPEG {label}" for stem, label, _ in PAIRS],
    "caffe with folders": [f"val/{stem}.JPEG\t{label}" for stem, label, _ in PAIRS],
    "file and wnid": [f"{stem}.JPEG,{wnid}" for stem, _, wnid in PAIRS],
    "file and wnid with heading": ["filename,wnid", *(f"{stem}.JPEG,{wnid}" for stem, _, wnid in PAIRS)],
    "kaggle": [
        "ImageId,PredictionString",
        *(f"{stem},{w} 85 1 499 272 {w} 1 1 9 9 " for stem, _, w in reversed(PAIRS)),
    ],
    "wnid a line": WNIDS,
    "full list of wnids": [*WNIDS, *["n01440764"] * 49_994],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_flat_with_each_form_of_ground_truth(workspace, tmp_path, flat, form, end):
    summary = run(workspace, flat, layout="flat", ground_truth=write(tmp_path / "truth", FORMS[form], end))
    assert (summary.found, summary.added) == (6, 6)
    assert [(row[0], row[8]) for row in rows(workspace)] == list(zip(VAL, LABELS, strict=True))


def save_meta(path: Path, ids: dict[int, str]) -> None:
    from scipy.io import savemat

    table = np.zeros(
        len(ids) + 1,
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")],
    )
    for place, (number, wnid) in enumerate(ids.items()):
        table[place] = (number, wnid, "words", "gloss", 0)
    table[-1] = (len(ids) + 1, "n00001740", "entity", "gloss", 3)
    path.parent.mkdir(exist_ok=True)
    savemat(path, {"synsets": table.reshape(-1, 1)})


@pytest.mark.parametrize("place", ["meta.mat", "data/meta.mat"])
def test_devkit_numbers_go_through_meta_mat(workspace, tmp_path, flat, place):
    kit = tmp_path / "kit"
    kit.mkdir()
    order = list(CLASSES.wnids)
    random.Random(1).shuffle(order)
    save_meta(kit / place, dict(enumerate(order, start=1)))
    truth = write(kit / "ILSVRC2012_validation_ground_truth.txt", [str(order.index(wnid) + 1) for wnid in WNIDS])
    run(workspace, flat, layout="flat", ground_truth=truth)
    assert [row[8] for row in rows(workspace)] == LABELS


def test_devkit_numbers_without_meta_mat_are_never_guessed(workspace, tmp_path, flat):
    truth = write(tmp_path / "truth.txt", [str(label + 1) for label in LABELS])
    with pytest.raises(SourceImportError, match=r"meta\.mat"):
        run(workspace, flat, layout="flat", ground_truth=truth)
    (tmp_path / "meta.mat").write_bytes(b"not a mat file")
    with pytest.raises(SourceImportError, match=r"not the development kit's meta\.mat"):
        run(workspace, flat, layout="flat", ground_truth=truth)
    save_meta(tmp_path / "meta.mat", {1: TENCH, 2: GOLDFISH})
    with pytest.raises(SourceImportError, match="does not know"):
        run(workspace, flat, layout="flat", ground_truth=truth)


def test_full_list_labels_a_part_of_val_by_number(workspace, tmp_path, flat):
    (flat / f"{VAL[1]}.JPEG").unlink()
    run(workspace, flat, layout="flat", ground_truth=write(tmp_path / "truth", FORMS["full list of wnids"]))
    assert [row[8] for row in rows(workspace)] == [LABELS[0], *LABELS[2:]]


def test_flat_photos_without_a_class_are_named(workspace, tmp_path, flat):
    lines = [f"{VAL[0]}.JPEG {TENCH}", f"{VAL[1]}.JPEG n99999999"]
    put(flat / "notes.txt", b"x")
    (flat / "folder").mkdir()
    truth = write(flat / "truth.txt", lines)
    summary = run(workspace, flat, layout="flat", ground_truth=truth)
    assert (summary.found, summary.added) == (8, 1), "the ground-truth file itself is no entry"
    assert skipped(summary) == dict.fromkeys([f"{stem}.JPEG" for stem in VAL[1:]], "unknown_class") | {
        "notes.txt": "not_an_image",
        "folder": "not_an_image",
    }


def test_another_labelling_of_recorded_photos_is_named(workspace, tmp_path, flat):
    run(workspace, flat, layout="flat", ground_truth=write(tmp_path / "truth", WNIDS))
    before = rows(workspace)
    other = run(workspace, flat, layout="flat", ground_truth=write(tmp_path / "truth", WNIDS[::-1]))
    assert set(skipped(other).values()) == {"other_class"} and rows(workspace) == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (WNIDS[:-1], "5 lines for 6 photos"),
        ([*WNIDS, TENCH], "7 lines for 6 photos"),
        (["n0144", *WNIDS[1:]], "no known form"),
        ([f"{VAL[0]}.JPEG tench"], "no known form"),
        ([f"{VAL[0]}.JPEG 1000"], "0 to 999"),
        ([f"{VAL[0]}.JPEG 3", f"{VAL[0]}.JPEG 4"], "two classes"),
        ([f"{VAL[0]},{TENCH} 1 2 3 4 {GOLDFISH} 1 2 3 4"], "more than one wnid"),
        (["other_name.JPEG 3"], "names none of the 6 photos"),
        ([""], "is empty"),
    ],
)
def test_ground_truth_that_cannot_belong_is_refused(workspace, tmp_path, flat, lines, message):
    with pytest.raises(SourceImportError, match=message):
        run(workspace, flat, layout="flat", ground_truth=write(tmp_path / "truth", lines))
    assert rows(workspace) == []


def test_what_cannot_start_says_why(workspace, tmp_path, flat):
    for changes, message in (
        ({"root": tmp_path / "none"}, "There is no folder"),
        ({"root": None}, "Name the folder"),
        ({"root": put(tmp_path / "file")}, "is a file"),
        ({"root": flat, "layout": "flat"}, "ground-truth"),
        ({"root": flat, "layout": "flat", "ground_truth": tmp_path / "none"}, "cannot be read"),
        ({"root": flat, "layout": "flat", "ground_truth": flat / f"{VAL[0]}.JPEG"}, "is not text"),
        ({"root": flat, "layout": "tree"}, "layout must be"),
    ):
        with pytest.raises(SourceImportError, match=message):
            run(workspace, None, **changes)


def source(workspace: Workspace) -> SourceImage:
    with workspace.read() as session:
        return session.scalars(select(SourceImage)).one()


def test_open_source_gives_the_imported_pixels_or_names_the_file(workspace, tmp_path):
    content = photo(4, "PNG")
    path = put(tmp_path / "val" / TENCH / "a.JPEG", content)
    run(workspace, tmp_path / "val")
    row = source(workspace)
    image = open_source(row)
    assert image.mode == "RGB" and image.tobytes() == Image.open(io.BytesIO(content)).tobytes()
    for other in (photo(5, "PNG"), content[:-1], content + b"\0", content[:-1] + b"\0"):
        path.write_bytes(other)
        with pytest.raises(SourceChanged, match=r"a\.JPEG"):
            open_source(row)
    path.unlink()
    with pytest.raises(SourceChanged, match="cannot be read"):
        open_source(row)
    path.symlink_to(put(tmp_path / "outside.JPEG", content))
    with pytest.raises(SourceChanged, match="leads out"):
        open_source(row)


def test_two_imports_at_once_record_each_photo_once(workspace, tmp_path):
    """The second starts when the first has not committed yet: what it found missing is asked again under the lock."""
    root = tmp_path / "val"
    for name in "abc":
        put(root / TENCH / f"{name}.JPEG")

    class Interleaved(Stops):
        def update(self, done, total, message=""):
            if done == 1:
                assert run(workspace, root).added == 3

    summary = import_images(workspace, ImportSpec("imagefolder", root), Interleaved(0))
    assert (summary.added, summary.already_there, len(rows(workspace))) == (0, 3, 3)


def test_importing_loads_neither_torch_nor_gradio():
    script = (
        "import sys, tempfile; from db.workspace import open_workspace\n"
        "from generation.sources import ImportSpec, import_images\n"
        "import_images(open_workspace(tempfile.mkdtemp()), ImportSpec('demo'))\n"
        "assert not {'torch', 'gradio', 'foolbox', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent.parent, check=True)
