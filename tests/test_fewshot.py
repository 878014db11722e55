"""Few-shot sets: seeded, the same however the photos were imported, never of the val split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from db.models import FewShotItem, FewShotSet, SourceImage, Split
from db.training_guard import TrainingDataError, UnknownFewShotSet, ValInTraining, fewshot_sources
from db.workspace import Workspace, open_workspace
from generation.fewshot import FewShotError, NoTrainSources, sample_fewshot
from generation.sources import ImportSpec, import_images
from tests.conftest import write_photos

WNIDS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def photos(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Seven train photos of the first class, three of the second, two of the third."""
    root = tmp_path / "photos"
    write_photos(root, 7, classes=WNIDS[:1])
    for wnid, numbers in ((WNIDS[1], (10, 11, 12)), (WNIDS[2], (20, 21))):
        write_photos(tmp_path / wnid, max(numbers) + 1, classes=(wnid,))
        (root / wnid).mkdir()
        for number in numbers:
            shutil.copy(tmp_path / wnid / wnid / f"photo_{number:04d}.jpg", root / wnid)
    import_images(workspace, ImportSpec("imagefolder", root, None, Split.TRAIN))
    return workspace


def _members(workspace: Workspace, set_id: int) -> dict[str, list[str]]:
    with workspace.read() as session:
        members: dict[str, list[str]] = {}
        for one in fewshot_sources(session, set_id):
            members.setdefault(one.image_class.wnid, []).append(one.name)
    return members


def test_each_class_gives_its_shots_and_shortfalls_are_named(photos):
    result = sample_fewshot(photos, 4, 1)
    members = _members(photos, result.set_id)
    assert {wnid: len(names) for wnid, names in members.items()} == {WNIDS[0]: 4, WNIDS[1]: 3, WNIDS[2]: 2}
    assert (result.sources, result.classes, result.is_new) == (9, 3, True)
    assert result.short == {WNIDS[1]: 3, WNIDS[2]: 2}
    assert len(result.missing) == 997 and not set(WNIDS) & set(result.missing)


def test_the_same_sample_is_recorded_once(photos):
    first, again = sample_fewshot(photos, 2, 1), sample_fewshot(photos, 2, 1)
    assert again.set_id == first.set_id and not again.is_new
    assert (again.short, again.missing, again.content_hash) == (first.short, first.missing, first.content_hash)
    assert sample_fewshot(photos, 2, 2).set_id != first.set_id
    with photos.read() as session:
        assert session.scalar(select(func.count()).select_from(FewShotSet)) == 2


def test_smaller_sets_lie_inside_larger_ones_and_seeds_differ(photos):
    one, two, four = (_members(photos, sample_fewshot(photos, shots, 1).set_id) for shots in (1, 2, 4))
    for wnid in WNIDS:
        assert set(one[wnid]) < set(two[wnid]) <= set(four[wnid])
    drawn = {tuple(_members(photos, sample_fewshot(photos, 1, seed).set_id)[WNIDS[0]]) for seed in range(20)}
    assert len(drawn) > 3


def test_the_order_of_imports_does_not_matter(photos, tmp_path):
    root = tmp_path / "photos"
    other = open_workspace(tmp_path / "other")
    for wnid in reversed(WNIDS):
        (tmp_path / "parts" / wnid).mkdir(parents=True)
        shutil.move(root / wnid, tmp_path / "parts" / wnid / wnid)
        import_images(other, ImportSpec("imagefolder", tmp_path / "parts" / wnid, None, Split.TRAIN))
    for shots in (1, 2, 16):
        first, second = sample_fewshot(photos, shots, 3), sample_fewshot(other, shots, 3)
        assert first.content_hash == second.content_hash
        assert _members(photos, first.set_id) == _members(other, second.set_id)
    other.close()


def test_a_copy_of_a_photo_is_taken_once(photos, tmp_path):
    folder = tmp_path / "copies" / WNIDS[1]
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "photos" / WNIDS[1] / "photo_0010.jpg", folder / "zz_copy.jpg")
    assert import_images(photos, ImportSpec("imagefolder", tmp_path / "copies", None, Split.TRAIN)).added == 1
    result = sample_fewshot(photos, 16, 1)
    assert result.duplicates == 1
    names = _members(photos, result.set_id)[WNIDS[1]]
    assert len(names) == 3 and not any("zz_copy" in name for name in names)


def test_val_photos_are_never_sampled(photos, tmp_path):
    val = tmp_path / "val" / WNIDS[2]
    val.mkdir(parents=True)
    shutil.copy(tmp_path / WNIDS[2] / WNIDS[2] / "photo_0001.jpg", val / "a_val_photo.jpg")
    import_images(photos, ImportSpec("imagefolder", tmp_path / "val", None, Split.VAL))
    result = sample_fewshot(photos, 16, 1)
    assert "a_val_photo" not in str(_members(photos, result.set_id))


def test_a_train_photo_that_is_also_a_val_photo_is_passed_over(photos):
    with photos.write() as session:
        photo = session.scalar(select(SourceImage).where(SourceImage.name.contains("photo_0020")))
        session.add(_twin(photo, "val_twin", Split.VAL))
    result = sample_fewshot(photos, 16, 1)
    assert result.also_val == (photo.name,)
    assert len(_members(photos, result.set_id)[WNIDS[2]]) == 1


def _twin(photo: SourceImage, name: str, split: Split) -> SourceImage:
    same = {key: getattr(photo, key) for key in ("root", "path", "sha256", "bytes", "width", "height", "class_index")}
    return SourceImage(name=name, split=split, **same)


def test_there_must_be_something_to_sample(workspace, tmp_path):
    with pytest.raises(NoTrainSources, match="--split train"):
        sample_fewshot(workspace, 4, 1)
    write_photos(tmp_path / "photos", 4)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.VAL))
    with pytest.raises(NoTrainSources, match="--split train"):
        sample_fewshot(workspace, 4, 1)


def test_nothing_but_val_photos_under_other_names_is_nothing(workspace, tmp_path):
    write_photos(tmp_path / "photos", 1)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.TRAIN))
    with workspace.write() as session:
        session.add(_twin(session.scalar(select(SourceImage)), "val_twin", Split.VAL))
    with pytest.raises(NoTrainSources, match="val photos under another name"):
        sample_fewshot(workspace, 1, 1)


@pytest.mark.parametrize(("shots", "seed", "named"), [(3, 1, "shots"), (0, 1, "shots"), (4, -1, "seed")])
def test_other_shots_and_seeds_are_refused(photos, shots, seed, named):
    with pytest.raises(FewShotError, match=named):
        sample_fewshot(photos, shots, seed)


def test_no_way_leads_a_val_photo_into_a_set(photos):
    set_id = sample_fewshot(photos, 1, 1).set_id
    with photos.write() as session:
        inside = set(session.scalars(select(FewShotItem.source_id)))
        outside = session.scalar(select(SourceImage).where(SourceImage.id.not_in(inside)).limit(1))
        session.execute(update(SourceImage).where(SourceImage.id == outside.id).values(split=Split.VAL))
    with pytest.raises(IntegrityError, match="train sources only"), photos.write() as session:
        session.execute(insert(FewShotItem), [{"set_id": set_id, "source_id": outside.id}])
    assert len(_members(photos, set_id)) == 3

    with pytest.raises(IntegrityError, match="append-only"), photos.write() as session:
        session.execute(update(FewShotItem).where(FewShotItem.source_id == min(inside)).values(source_id=outside.id))

    # Past the triggers, which watch the set's rows alone: a photo of it is declared a val photo. The readers refuse.
    with photos.write() as session:
        session.execute(update(SourceImage).where(SourceImage.id == min(inside)).values(split=Split.VAL))
        name = session.get(SourceImage, min(inside)).name
    with pytest.raises(ValInTraining, match=name), photos.read() as session:
        fewshot_sources(session, set_id)


def test_a_set_whose_photo_turns_up_among_the_val_photos_is_refused(photos):
    set_id = sample_fewshot(photos, 1, 1).set_id
    with photos.write() as session:
        photo = fewshot_sources(session, set_id)[0]
        session.add(_twin(photo, "val_twin", Split.VAL))
    with pytest.raises(ValInTraining, match="val_twin"), photos.read() as session:
        fewshot_sources(session, set_id)


def test_a_set_that_was_changed_afterwards_is_refused(photos):
    set_id = sample_fewshot(photos, 1, 1).set_id
    with photos.write() as session:
        inside = set(session.scalars(select(FewShotItem.source_id)))
        outside = session.scalar(select(SourceImage.id).where(SourceImage.id.not_in(inside)).limit(1))
        session.execute(insert(FewShotItem), [{"set_id": set_id, "source_id": outside}])
    with pytest.raises(TrainingDataError, match="no longer holds"), photos.read() as session:
        fewshot_sources(session, set_id)
    with pytest.raises(UnknownFewShotSet, match="fewshot --list"), photos.read() as session:
        fewshot_sources(session, 99)
