"""The door to training: what is given out, and that nothing of a val photo ever is, whichever way it is brought in."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update

from db.models import (
    Adjudication,
    AutoVerdict,
    Candidate,
    CurrentVerdict,
    Decision,
    FewShotItem,
    Kind,
    Recipe,
    SourceImage,
    Split,
    TriageBand,
    TriageModel,
    Verdict,
)
from db.queries import active_recipe, ensure_user
from db.training_guard import OutsideFewShotSet, TrainingDataError, UnknownFewShotSet, ValInTraining
from db.training_queries import TrainingData, balancing_repeats, recipes_made_with, training_candidates
from db.workspace import Workspace, open_workspace
from generation.backends import load_backends
from generation.fewshot import sample_fewshot
from generation.pipeline import generate
from generation.pseudo_ood.id_aug_candidates import IdAugModels, make_id_augs
from generation.pseudo_ood.id_aug_options import IdAugOptions, OptionPlan
from generation.pseudo_ood.pixel_similarity import PixelSimilarity
from generation.pseudo_ood.texture_candidates import TextureModels, TextureOptions, make_textures
from generation.sources import ImportSpec, import_images
from tests.conftest import write_photos
from tests.train_photos import NOOP, WNIDS, backends, candidates, sources, with_train_photos

SET = 1
PLANS = (OptionPlan(1, 0.25), OptionPlan(2, 0.5), OptionPlan(3, 0.25))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    """16 train and 8 val photos with backgrounds under one recipe; a set, textures and id_augs of the train ones."""
    folder = tmp_path_factory.mktemp("train")
    opened = with_train_photos(folder / "workspace", folder / "photos")
    write_photos(folder / "all", 24, classes=WNIDS)
    for number in range(16):
        (folder / "all" / WNIDS[number % 4] / f"photo_{number:04d}.jpg").unlink()
    assert import_images(opened, ImportSpec("imagefolder", folder / "all", None, Split.VAL)).added == 8
    generate(opened, NOOP, backends=backends())
    inner = load_backends(NOOP)
    make_textures(opened, TextureOptions(), models=TextureModels(inner.inpainter, inner.scorer))
    assert sample_fewshot(opened, 2, 1).set_id == SET
    options = IdAugOptions(plans=PLANS, min_similarity=-1)
    make_id_augs(opened, options, SET, models=IdAugModels(PixelSimilarity(), inner.scorer))
    opened.close()
    return folder


@pytest.fixture
def mixed(made_once, tmp_path):
    shutil.copytree(made_once / "workspace", tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def read(workspace: Workspace, set_id: int = SET, **values) -> TrainingData:
    with workspace.read() as session:
        base = active_recipe(session)
        recipes = {
            f"{kind}_recipe_id": recipes_made_with(session, kind, background_recipe=base.hash)[0].id
            for kind in (Kind.TEXTURE, Kind.ID_AUG)
        }
        return training_candidates(session, set_id, **{"background_recipe_id": base.id, **recipes, **values})


def members(workspace: Workspace) -> set[int]:
    with workspace.read() as session:
        return set(session.scalars(select(FewShotItem.source_id).where(FewShotItem.set_id == SET)))


def of_split(workspace: Workspace, split: Split) -> list[Candidate]:
    photos = sources(workspace)
    return [one for one in candidates(workspace, Kind.BACKGROUND) if photos[one.source_id].split is split]


def put_in(workspace: Workspace, like: Candidate, **changes) -> Candidate:
    """A candidate written by hand: a copy of one that is there, with changes."""
    columns = {c.key: getattr(like, c.key) for c in Candidate.__table__.columns if c.key not in ("id", "created_at")}
    fresh = {"variant": 40, "folder": "candidates/aa/by-hand", "result_sha256": "f" * 64}
    with workspace.write() as session:
        row = Candidate(**{**columns, **fresh, **changes})
        session.add(row)
    return row


def judge(workspace: Workspace, candidate_id: int, verdict: Verdict, name: str = "local") -> None:
    with workspace.write() as session:
        user, shown = ensure_user(session, name), session.get(Candidate, candidate_id)
        decision = Decision(
            uuid=f"{candidate_id}-{name}",
            candidate_id=candidate_id,
            user_id=user.id,
            verdict=verdict,
            result_sha256=shown.result_sha256,
        )
        session.add(decision)
        session.flush()
        session.add(
            CurrentVerdict(candidate_id=candidate_id, user_id=user.id, verdict=verdict, decision_id=decision.id)
        )


def test_a_set_gives_its_photos_and_what_was_made_of_them(mixed):
    data = read(mixed)
    inside, photos = members(mixed), sources(mixed)
    assert data.fewshot_set.id == SET
    assert {one.source.id for one in data.sources} == inside and len(inside) == 8
    assert {photos[key].split for key in inside} == {Split.TRAIN}
    large = {one.source.id for one in data.sources if one.source.class_index < 2}
    assert {row.source.id for row in data.backgrounds} == large, "the others have a drop of 5 or less"
    assert all(row.candidate.drop > 5 and row.ground is None for row in data.backgrounds)
    assert {one.source.id: one.background is not None for one in data.sources} == {key: key in large for key in inside}
    assert {row.source.id for row in data.textures} == {k for k in inside if photos[k].class_index < 3}
    assert [row.candidate.details["option"] for row in data.id_augs if row.ground is None] == [3]
    for row in data.id_augs:
        assert row.source.id in large
        if row.ground is not None:
            assert row.ground.id == row.candidate.details["background_candidate_id"]
            assert row.ground_source.id == row.ground.source_id in inside
            assert row.ground_source.class_index != row.source.class_index
    assert data.left_out == {"background: drop not above 5": 4}


def test_kinds_not_asked_for_are_left_out(mixed):
    data = read(mixed, texture_recipe_id=None, id_aug_recipe_id=None)
    assert len(data.backgrounds) == 4 and data.textures == data.id_augs == ()
    assert {one.repeats for one in data.sources} == {0}
    assert len(read(mixed, min_drop=0).backgrounds) == 8


def test_verdicts_decide_as_in_review(mixed):
    weak = next(one for one in of_split(mixed, Split.TRAIN) if one.drop < 5 and one.source_id in members(mixed))
    strong, disputed, settled, auto = [row.candidate.id for row in read(mixed).backgrounds]
    judge(mixed, weak.id, Verdict.ACCEPT)
    judge(mixed, strong, Verdict.REJECT)
    judge(mixed, disputed, Verdict.ACCEPT, "ada")
    judge(mixed, disputed, Verdict.REJECT, "bob")
    judge(mixed, settled, Verdict.REJECT)
    with mixed.write() as session:
        user = ensure_user(session)
        given = {"candidate_id": settled, "user_id": user.id, "result_sha256": "0" * 64}
        session.add(Adjudication(uuid="a", verdict=Verdict.ACCEPT, **given))
        recipe = active_recipe(session)
        model = TriageModel(recipe_id=recipe.id, last_decision_id=0, trained_on=0, features=[], metrics={})
        session.add(model)
        session.flush()
        band = TriageBand(model_id=model.id, estimate={}, confirmed_by="ada")
        session.add(band)
        session.flush()
        session.add(AutoVerdict(candidate_id=auto, band_id=band.id, verdict=Verdict.REJECT, p_accept=0.01))
        session.add(AutoVerdict(candidate_id=weak.id, band_id=band.id, verdict=Verdict.REJECT, p_accept=0.01))
    assert {row.candidate.id for row in read(mixed, id_aug_recipe_id=None).backgrounds} == {weak.id, settled}
    with mixed.write() as session:
        session.add(Adjudication(uuid="b", verdict=Verdict.UNDO, **given))
        session.execute(update(TriageBand).values(revoked_at=band.confirmed_at))
    assert {row.candidate.id for row in read(mixed, id_aug_recipe_id=None).backgrounds} == {weak.id, auto}


def test_rejected_low_and_outdated_ones_are_left_out_and_counted(mixed):
    data = read(mixed)
    texture = data.textures[0].candidate
    first = next(row for row in data.id_augs if row.candidate.details["option"] == 1)
    judge(mixed, texture.id, Verdict.REJECT)
    judge(mixed, first.ground.id, Verdict.REJECT)
    with mixed.write() as session:
        low = session.get(Candidate, data.textures[1].candidate.id)
        low.details = {**low.details, "part": "low"}
    outdated = next(row for row in data.textures if row.source.class_index == 2)
    old = next(one for one in of_split(mixed, Split.TRAIN) if one.source_id == outdated.source.id)
    put_in(mixed, old, version=2, variant=0, parent_id=old.id)
    after = read(mixed)
    gone = {texture.id, low.id, outdated.candidate.id}
    assert {row.candidate.id for row in data.textures} - {row.candidate.id for row in after.textures} == gone
    assert first.candidate.id not in {row.candidate.id for row in after.id_augs}
    assert after.left_out["texture: rejected"] == after.left_out["texture: low part"] == 1
    assert after.left_out["texture: mask corrected since"] == 1
    assert after.left_out["id_aug: its background was rejected"] >= 1


def test_the_record_changes_with_what_goes_in(mixed):
    first = read(mixed).record()
    assert first == read(mixed).record()
    assert {kind: first[kind]["count"] for kind in ("sources", "backgrounds", "textures", "id_augs")} == {
        "sources": 8,
        "backgrounds": 4,
        "textures": 6,
        "id_augs": 4,
    }
    judge(mixed, read(mixed).textures[0].candidate.id, Verdict.REJECT)
    second = read(mixed).record()
    assert second["textures"]["sha256"] != first["textures"]["sha256"]
    assert {**second, "textures": 0} == {**first, "textures": 0}


def test_classes_are_balanced_by_showing_photos_again():
    photos = [
        SourceImage(id=10 * index + number, class_index=index, sha256=f"{index}{number}")
        for index in range(3)
        for number in range(3)
    ]
    id_augs = [Candidate(class_index=0) for _ in range(4)] + [Candidate(class_index=1) for _ in range(3)]
    repeats = balancing_repeats(photos, id_augs, seed=1)
    counts = Counter(key // 10 for key in repeats)
    # Class 0 has most (4); class 1 lacks one; class 2 lacks four and has three photos to show again.
    assert counts == {1: 1, 2: 3} and set(repeats.values()) == {1}
    assert balancing_repeats(photos[::-1], id_augs, seed=1) == repeats
    assert len({tuple(balancing_repeats(photos, id_augs, seed=seed)) for seed in range(30)}) > 1
    assert balancing_repeats(photos, [], seed=1) == {}


def test_a_texture_of_a_val_photo_is_not_in_any_set(mixed):
    val = of_split(mixed, Split.VAL)[0]
    real = candidates(mixed, Kind.TEXTURE)[0]
    details = {"cell": 0, "mask_candidate_id": val.id}
    smuggled = put_in(mixed, real, source_id=val.source_id, class_index=val.class_index, details=details)
    assert smuggled.id not in {row.candidate.id for row in read(mixed).textures}


def test_a_texture_that_claims_a_train_photo_but_used_a_val_mask_is_refused(mixed):
    val = of_split(mixed, Split.VAL)[0]
    real = read(mixed).textures[0].candidate
    smuggled = put_in(mixed, real, details={"cell": 0, "mask_candidate_id": val.id})
    with pytest.raises(ValInTraining, match=f"Candidate {smuggled.id} .*{sources(mixed)[val.source_id].name}"):
        read(mixed)


def test_an_id_aug_on_a_val_background_is_refused(mixed):
    val = of_split(mixed, Split.VAL)[0]
    real = read(mixed).id_augs[0].candidate
    smuggled = put_in(mixed, real, details={**real.details, "option": 1, "background_candidate_id": val.id})
    with pytest.raises(ValInTraining, match=f"Candidate {smuggled.id} "):
        read(mixed)


def test_noise_with_a_val_background_in_its_details_is_refused(mixed):
    val = of_split(mixed, Split.VAL)[0]
    real = read(mixed).id_augs[0].candidate
    put_in(mixed, real, details={**real.details, "option": 3, "background_candidate_id": val.id})
    with pytest.raises(ValInTraining):
        read(mixed)


def test_an_id_aug_on_a_texture_of_a_val_photo_is_refused(mixed):
    val = of_split(mixed, Split.VAL)[0]
    texture = candidates(mixed, Kind.TEXTURE)[0]
    details = {"cell": 0, "mask_candidate_id": val.id}
    of_val = put_in(mixed, texture, source_id=val.source_id, class_index=val.class_index, details=details)
    real = read(mixed).id_augs[0].candidate
    put_in(mixed, real, details={**real.details, "option": 2, "background_candidate_id": of_val.id})
    with pytest.raises(ValInTraining):
        read(mixed)


def test_an_id_aug_whose_texture_used_a_val_mask_is_refused_two_steps_back(mixed):
    val = of_split(mixed, Split.VAL)[0]
    row = read(mixed).textures[0]
    # Under another recipe, so that the texture itself is not asked for.
    with mixed.write() as session:
        other = Recipe(hash="e" * 64, config={"kind": "texture", "options": {}, "backends": {}})
        session.add(other)
    hidden = put_in(mixed, row.candidate, recipe_id=other.id, details={"cell": 0, "mask_candidate_id": val.id})
    real = read(mixed).id_augs[0].candidate
    put_in(mixed, real, details={**real.details, "option": 2, "background_candidate_id": hidden.id})
    with pytest.raises(ValInTraining):
        read(mixed)


def test_a_version_whose_parent_is_of_a_val_photo_is_refused(mixed):
    val = of_split(mixed, Split.VAL)[0]
    own = read(mixed).backgrounds[0].candidate
    put_in(mixed, own, version=2, parent_id=val.id)
    with pytest.raises(ValInTraining):
        read(mixed)


@pytest.mark.parametrize("column", ["folder", "result_sha256"])
def test_a_row_that_shows_a_val_candidates_pixels_is_refused(mixed, column):
    val = next(one for one in of_split(mixed, Split.VAL) if one.drop > 5)
    own = read(mixed).backgrounds[0].candidate
    smuggled = put_in(mixed, own, version=2, **{column: getattr(val, column)})
    with pytest.raises(ValInTraining, match=f"Candidate {smuggled.id} .*shows the pixels of candidate {val.id}"):
        read(mixed)


def test_a_photo_of_the_set_that_becomes_a_val_photo_closes_the_door(mixed):
    with mixed.write() as session:
        session.execute(update(SourceImage).where(SourceImage.id == min(members(mixed))).values(split=Split.VAL))
    with pytest.raises(ValInTraining, match="sample a new set"):
        read(mixed)
    with pytest.raises(ValInTraining):
        make_textures_of_set(mixed)
    with pytest.raises(ValInTraining):
        augment_set(mixed)


def make_textures_of_set(workspace: Workspace):
    from generation.pseudo_ood.texture_selection import TextureSelection

    inner = load_backends(NOOP)
    models = TextureModels(inner.inpainter, inner.scorer)
    return make_textures(workspace, TextureOptions(seed=9), TextureSelection(SET), models=models)


def augment_set(workspace: Workspace):
    models = IdAugModels(PixelSimilarity(), load_backends(NOOP).scorer)
    return make_id_augs(workspace, IdAugOptions(seed=9), SET, models=models)


def test_a_val_photo_in_the_set_past_the_triggers_closes_the_door(mixed):
    val = of_split(mixed, Split.VAL)[0]
    with mixed.write() as session:
        session.execute(text("DROP TRIGGER fewshot_items_train_only"))
        session.execute(insert(FewShotItem), [{"set_id": SET, "source_id": val.source_id}])
    for use in (read, make_textures_of_set, augment_set):
        with pytest.raises(ValInTraining, match=sources(mixed)[val.source_id].name):
            use(mixed)


def test_the_makers_take_nothing_smuggled_either(mixed):
    val = of_split(mixed, Split.VAL)[0]
    own = read(mixed).backgrounds[0].candidate
    put_in(mixed, own, version=2, folder=val.folder)
    with pytest.raises(ValInTraining):
        augment_set(mixed)


def test_more_shots_than_the_set_says_are_refused(mixed):
    outside = next(one for one in of_split(mixed, Split.TRAIN) if one.source_id not in members(mixed))
    real = read(mixed).id_augs[0].candidate
    put_in(mixed, real, details={**real.details, "option": 1, "background_candidate_id": outside.id})
    with pytest.raises(OutsideFewShotSet, match="not in few-shot set 1"):
        read(mixed)


@pytest.mark.parametrize(
    "details",
    [{}, {"option": 1, "mask_candidate_id": 1}, {"option": 1, "mask_candidate_id": 1, "background_candidate_id": None}],
)
def test_what_does_not_say_where_it_came_from_is_refused(mixed, details):
    put_in(mixed, read(mixed).id_augs[0].candidate, details=details)
    with pytest.raises(TrainingDataError, match="candidate_id"):
        read(mixed)


def test_what_came_from_something_that_is_gone_is_refused(mixed):
    real = read(mixed).textures[0].candidate
    put_in(mixed, real, details={"cell": 0, "mask_candidate_id": 99_999})
    with pytest.raises(TrainingDataError, match="99999, which is gone"):
        read(mixed)


def test_recipes_that_do_not_belong_together_are_refused(mixed):
    second = sample_fewshot(mixed, 1, 1)
    with pytest.raises(TrainingDataError, match="another fewshot set"):
        read(mixed, second.set_id)
    with mixed.read() as session:
        base = active_recipe(session)
        texture, id_aug = (
            recipes_made_with(session, kind, background_recipe=base.hash)[0] for kind in (Kind.TEXTURE, Kind.ID_AUG)
        )
        assert recipes_made_with(session, Kind.TEXTURE, background_recipe="0" * 64) == []
    with pytest.raises(TrainingDataError, match="does not make texture"):
        read(mixed, texture_recipe_id=id_aug.id)
    with pytest.raises(TrainingDataError, match="removes objects"):
        read(mixed, background_recipe_id=texture.id)
    with pytest.raises(UnknownFewShotSet):
        read(mixed, 77)
