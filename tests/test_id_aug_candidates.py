"""Id_aug candidates: the object on another class's background, a texture or noise, by the published rules."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sqlalchemy import delete, select

from db.models import Candidate, CurrentVerdict, Decision, Kind, Outcome, Recipe, State, Verdict
from db.progress import Cancelled
from db.queries import active_recipe, ensure_user
from db.workspace import Workspace, open_workspace
from generation.artifacts import decode_png, encode_png, write_folder
from generation.backends import load_backends
from generation.fewshot import sample_fewshot
from generation.id_aug import on_background
from generation.pseudo_ood.clip_similarity import ClipSimilarity
from generation.pseudo_ood.embedded_similarity import EmbeddedSimilarity
from generation.pseudo_ood.id_aug_candidates import IdAugModels, NothingToAugment, make_id_augs
from generation.pseudo_ood.id_aug_options import PUBLISHED_PLANS, IdAugOptions, OptionPlan
from generation.pseudo_ood.models import load_similarity
from generation.pseudo_ood.pixel_similarity import PixelSimilarity
from generation.pseudo_ood.texture_candidates import TextureModels, TextureOptions, make_textures
from generation.recipe import RecipeError
from generation.registry import UnknownBackend
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.scores import image_similarity
from tests.conftest import ROOT
from tests.tiny_clip import tiny_state_dict
from tests.train_photos import NOOP, CancelAfter, candidates, files, rows, sources, with_train_photos

SET = 1
BACKGROUND_ONLY = (OptionPlan(1, 1.0),)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    """24 train photos, six a class; twelve have an object of 61 %; backgrounds, textures and a set of them all."""
    folder = tmp_path_factory.mktemp("train")
    train = with_train_photos(folder / "workspace", folder / "photos", count=24)
    inner = load_backends(NOOP)
    make_textures(train, TextureOptions(), models=TextureModels(inner.inpainter, inner.scorer))
    assert sample_fewshot(train, 16, 1).set_id == SET
    train.close()
    return folder


@pytest.fixture
def copy_of(made_once, tmp_path):
    opened: list[Workspace] = []

    def copy(name: str) -> Workspace:
        shutil.copytree(made_once / "workspace", tmp_path / name)
        opened.append(open_workspace(tmp_path / name))
        return opened[-1]

    yield copy
    for one in opened:
        one.close()


@pytest.fixture
def train(copy_of):
    return copy_of("workspace")


def models(similarity=None) -> IdAugModels:
    return IdAugModels(similarity or PixelSimilarity(), load_backends(NOOP).scorer)


class Alike:
    """Every pair of images has the same similarity."""

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine
        self.seen = 0

    def fingerprint(self):
        return {"name": "alike", "cosine": self.cosine}

    def features(self, images):
        self.seen += len(images)
        # A composite is told from a photo by nothing here: an axis each, at the wanted angle to the first.
        angle = np.arccos(self.cosine)
        return np.array([[1.0, 0.0] if _is_photo(one) else [np.cos(angle), np.sin(angle)] for one in images], "float32")


_PHOTOS: set[bytes] = set()


def _is_photo(image: np.ndarray) -> bool:
    return image.tobytes() in _PHOTOS


def know_photos(workspace: Workspace) -> None:
    _PHOTOS.update(image(workspace, one, "raw").tobytes() for one in candidates(workspace, Kind.BACKGROUND))


def image(workspace: Workspace, candidate: Candidate, name: str) -> np.ndarray:
    return decode_png((workspace.path(candidate.folder) / f"{name}.png").read_bytes())


def by_id(workspace: Workspace) -> dict[int, Candidate]:
    with workspace.read() as session:
        return {one.id: one for one in session.scalars(select(Candidate))}


def test_the_defaults_are_the_published_ones():
    options = IdAugOptions()
    assert options.plans == PUBLISHED_PLANS == ((1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 1))
    assert (options.tries, options.min_similarity, options.min_object_area, options.min_drop) == (5, 0.7, 0.5, 5.0)
    assert IdAugOptions.from_dict(options.to_json()) == options


def test_each_composite_is_the_object_on_what_its_details_say(train):
    result = make_id_augs(train, IdAugOptions(), SET, models=models())
    made, every = candidates(train, Kind.ID_AUG), by_id(train)
    assert len(made) == result.made == 18, "half of the twelve photos with a usable mask, for each option"
    assert (result.images, result.too_small) == (12, 0)
    assert [(one.option, one.target, one.made) for one in result.passes] == [(1, 6, 6), (2, 6, 6), (3, 6, 6)]
    assert result.passes[0].tries > 6, "some backgrounds are too unlike"
    for one in made:
        raw, mask, replaced, shown = (image(train, one, name) for name in ("raw", "mask", "dilated", "result"))
        own = every[one.details["mask_candidate_id"]]
        assert (own.kind, own.source_id) == (Kind.BACKGROUND, one.source_id)
        assert np.array_equal(raw, image(train, own, "raw")) and np.array_equal(mask, image(train, own, "mask"))
        assert np.array_equal(replaced, 255 - mask)
        assert np.array_equal(shown[mask == 255], raw[mask == 255])
        option, ground_id = one.details["option"], one.details["background_candidate_id"]
        if option == 3:
            assert ground_id is None
        else:
            ground = every[ground_id]
            assert ground.kind == (Kind.BACKGROUND if option == 1 else Kind.TEXTURE)
            assert ground.class_index != one.class_index
            assert np.array_equal(shown, on_background(raw, mask, image(train, ground, "result")))
            assert option == 2 or ground.drop > 5
        pair = PixelSimilarity().features([raw, shown])
        assert one.details["similarity"] == pytest.approx(float(pair[0] @ pair[1]), abs=1e-4)
        assert one.details["similarity"] >= 0.7
        assert 1 <= one.details["try"] <= 5
        assert (one.variant, one.details["repeat"]) == (option - 1, 0)


def test_noise_is_uniform_and_its_own_for_each_image(train):
    make_id_augs(train, IdAugOptions(plans=(OptionPlan(3, 1.0),), min_similarity=-1), SET, models=models())
    made = candidates(train, Kind.ID_AUG)
    noise = [image(train, one, "result")[image(train, one, "mask") == 0] for one in made]
    assert len({one.tobytes() for one in noise}) == len(made) == 12
    levels = np.concatenate(noise)
    assert abs(levels.mean() - 127.5) < 1 and abs(levels.std() - 73.9) < 1
    assert levels.min() == 0 and levels.max() == 255


def test_no_background_is_used_twice_in_a_pass_nor_by_an_image_in_two(train):
    options = IdAugOptions(plans=(OptionPlan(1, 0.5, 3), OptionPlan(3, 0.25, 2)), min_similarity=-1)
    result = make_id_augs(train, options, SET, models=models())
    assert [(one.option, one.repeat, one.made) for one in result.passes] == [
        (1, 0, 6),
        (1, 1, 6),
        (1, 2, 6),
        (3, 0, 3),
        (3, 1, 3),
    ]
    made = candidates(train, Kind.ID_AUG)
    for repeat in range(3):
        used = [m.details["background_candidate_id"] for m in made if m.details["repeat"] == repeat and m.variant < 3]
        assert len(set(used)) == len(used) == 6
    pairs = Counter((m.source_id, m.details["background_candidate_id"]) for m in made if m.details["option"] == 1)
    assert set(pairs.values()) == {1}
    assert {(m.variant, m.details["option"], m.details["repeat"]) for m in made} == {
        (0, 1, 0),
        (1, 1, 1),
        (2, 1, 2),
        (3, 3, 0),
        (4, 3, 1),
    }


def test_each_option_has_its_own_rate(train):
    plans = (OptionPlan(1, 0.25), OptionPlan(2, 0.75), OptionPlan(3, 1.0))
    result = make_id_augs(train, IdAugOptions(plans=plans, min_similarity=-1), SET, models=models())
    assert [(one.target, one.made) for one in result.passes] == [(3, 3), (9, 9), (12, 12)]


def test_the_draw_is_by_seed_and_the_recipe_records_it(train):
    first = make_id_augs(train, IdAugOptions(seed=1), SET, models=models())
    second = make_id_augs(train, IdAugOptions(seed=2), SET, models=models())
    drawn = {first.recipe_hash: set(), second.recipe_hash: set()}
    with train.read() as session:
        recipes = {one.id: one for one in session.scalars(select(Recipe))}
        active = active_recipe(session)
    for one in candidates(train, Kind.ID_AUG):
        drawn[recipes[one.recipe_id].hash].add((one.source_id, one.details["background_candidate_id"]))
    assert drawn[first.recipe_hash] != drawn[second.recipe_hash]
    config = next(one for one in recipes.values() if one.hash == second.recipe_hash).config
    assert config["kind"] == "id_aug" and set(config) == {"format", "kind", "options", "backends"}
    assert config["options"]["background_recipe"] == active.hash, "and the active recipe stays the backgrounds'"
    assert config["options"]["seed"] == 2 and len(config["options"]["drawn_from"]) == 64
    assert config["options"]["plans"][0] == {"option": 1, "rate": 0.5, "times": 1}
    assert config["backends"] == {
        "similarity": {"name": "noop", "grade": "test"},
        "scorer": {"name": "noop", "grade": "test"},
    }


def test_a_second_run_does_nothing(train):
    make_id_augs(train, IdAugOptions(), SET, models=models())
    before = rows(train, Kind.ID_AUG), files(train)
    assert make_id_augs(train, IdAugOptions(), SET, models=models()).made == 0
    assert (rows(train, Kind.ID_AUG), files(train)) == before


def test_a_cancelled_run_goes_on_to_the_same_end(train, copy_of):
    quiet = copy_of("quiet")
    make_id_augs(quiet, IdAugOptions(), SET, models=models())
    for steps in (3, 9, 4):
        with pytest.raises(Cancelled):
            make_id_augs(train, IdAugOptions(), SET, models=models(), progress=CancelAfter(steps))
    made = len(candidates(train, Kind.ID_AUG))
    assert 0 < made < 18
    assert make_id_augs(train, IdAugOptions(), SET, models=models()).made == 18 - made
    assert (rows(train, Kind.ID_AUG), files(train)) == (rows(quiet, Kind.ID_AUG), files(quiet))


_CHILD = """
import sys
from db.workspace import open_workspace
from generation.pseudo_ood.id_aug_candidates import make_id_augs
from generation.pseudo_ood.id_aug_options import IdAugOptions, OptionPlan
plans = tuple(OptionPlan(option, 1.0, 3) for option in (1, 2, 3))
make_id_augs(open_workspace(sys.argv[1]), IdAugOptions(plans=plans), 1)
"""


def test_killed_half_way_the_result_is_the_same_bytes(train, copy_of):
    options = IdAugOptions(plans=tuple(OptionPlan(option, 1.0, 3) for option in (1, 2, 3)))
    quiet = copy_of("quiet")
    total = make_id_augs(quiet, options, SET, models=models()).made
    folders = train.root / "candidates"
    before = len(list(folders.glob("*/*/result.png")))
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(train.root)], cwd=ROOT)
    while child.poll() is None and len(list(folders.glob("*/*/result.png"))) < before + total // 3:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run finished before it could be killed"
    assert len(candidates(train, Kind.ID_AUG)) < total
    make_id_augs(train, options, SET, models=models())
    assert (rows(train, Kind.ID_AUG), files(train)) == (rows(quiet, Kind.ID_AUG), files(quiet))


@pytest.mark.parametrize(("cosine", "kept"), [(0.71, 12), (0.69, 0)])
def test_composites_too_unlike_their_photo_are_tried_again_and_then_given_up(train, cosine, kept):
    know_photos(train)
    alike = Alike(cosine)
    result = make_id_augs(train, IdAugOptions(plans=BACKGROUND_ONLY), SET, models=models(alike))
    assert result.passes[0].made == result.made == kept
    # Six backgrounds of the other class there are, and five tries each photo has.
    assert result.passes[0].tries == (12 if kept else 60)
    assert alike.seen == result.passes[0].tries + 12, "a photo's own features are computed once"
    with train.read() as session:
        recipe_id = session.scalar(select(Recipe.id).where(Recipe.hash == result.recipe_hash))
        ends = list(session.scalars(select(Outcome).where(Outcome.recipe_id == recipe_id)))
    assert Counter(one.state for one in ends) == {State.CANDIDATE if kept else State.FAILED: 12}
    assert kept or all("similarity of 0.7" in one.reason for one in ends)
    assert result.failed == 12 - kept


def test_small_objects_are_not_augmented_but_count_for_the_rate(train):
    # The photos with the small object have a drop of about 1: a lower bound makes their masks usable too.
    options = IdAugOptions(plans=(OptionPlan(3, 0.5),), min_drop=0.5, min_similarity=-1)
    result = make_id_augs(train, options, SET, models=models())
    assert (result.images, result.too_small) == (24, 12)
    assert (result.passes[0].target, result.passes[0].made) == (12, 12)
    areas = {one.source_id: one.area for one in candidates(train, Kind.BACKGROUND)}
    assert all(areas[one.source_id] >= 0.5 for one in candidates(train, Kind.ID_AUG))
    with train.read() as session:
        small = list(session.scalars(select(Outcome).where(Outcome.state == State.MASK_TOO_SMALL)))
    reasons = {one.reason for one in small if "covers" in one.reason}
    assert reasons == {
        "The object covers 8.16%, less than 50.00%.",
        "The object covers 3.86%, less than 50.00%.",
    }


def _judge(workspace: Workspace, candidate: Candidate, verdict: Verdict) -> None:
    with workspace.write() as session:
        user = ensure_user(session)
        decision = Decision(
            uuid=f"{candidate.id}-{verdict}",
            candidate_id=candidate.id,
            user_id=user.id,
            verdict=verdict,
            result_sha256=candidate.result_sha256,
        )
        session.add(decision)
        session.flush()
        session.execute(delete(CurrentVerdict).where(CurrentVerdict.candidate_id == candidate.id))
        session.add(
            CurrentVerdict(candidate_id=candidate.id, user_id=user.id, verdict=verdict, decision_id=decision.id)
        )


def test_verdicts_decide_which_backgrounds_there_are(train):
    options = IdAugOptions(plans=BACKGROUND_ONLY, min_similarity=-1)
    first = make_id_augs(train, options, SET, models=models())
    large = [one for one in candidates(train, Kind.BACKGROUND) if one.drop > 5]
    weak = next(one for one in candidates(train, Kind.BACKGROUND) if one.drop < 5)
    _judge(train, large[0], Verdict.REJECT)
    _judge(train, weak, Verdict.ACCEPT)
    second = make_id_augs(train, options, SET, models=models())
    assert first.recipe_hash != second.recipe_hash, "other backgrounds to draw from make another set"
    assert (second.images, second.too_small) == (12, 1)
    with train.read() as session:
        recipe_id = session.scalar(select(Recipe.id).where(Recipe.hash == second.recipe_hash))
    mine = [one for one in candidates(train, Kind.ID_AUG) if one.recipe_id == recipe_id]
    used = {one.details["background_candidate_id"] for one in mine}
    assert large[0].id not in used | {one.details["mask_candidate_id"] for one in mine}


def _overwrite_result(workspace: Workspace, one: Candidate, pixels: np.ndarray) -> None:
    names = ("raw", "mask", "dilated")
    pictures = {f"{name}.png": encode_png(image(workspace, one, name)) for name in names}
    write_folder(workspace.path(one.folder), pictures | {"result.png": encode_png(pixels)}, {"notes": {}})


def test_blank_and_damaged_backgrounds_are_passed_over(train):
    grounds = [one for one in candidates(train, Kind.BACKGROUND) if one.drop > 5 and one.class_index == 0]
    for one, level in zip(grounds, (255, 0), strict=False):
        _overwrite_result(train, one, np.full((224, 224, 3), level, np.uint8))
    (train.path(grounds[2].folder) / "result.png").write_bytes(b"cut off")
    options = IdAugOptions(plans=BACKGROUND_ONLY, min_similarity=-1)
    result = make_id_augs(train, options, SET, models=models())
    used = {one.details["background_candidate_id"] for one in candidates(train, Kind.ID_AUG)}
    assert not used & {one.id for one in grounds[:3]}
    assert len(used & {one.id for one in grounds}) == 3
    # Three photos of the other class find no background, and the damaged one is no photo to augment either.
    assert result.failed == 4
    with train.read() as session:
        reasons = Counter(session.scalars(select(Outcome.reason).where(Outcome.state == State.FAILED)))
    assert reasons["No background of another class was left to try."] == 3
    assert sum(grounds[2].folder in reason for reason in reasons) == 1


def test_what_failed_is_tried_again_when_asked(train):
    victim = next(one for one in candidates(train, Kind.BACKGROUND) if one.drop > 5)
    file = train.path(victim.folder) / "raw.png"
    content = file.read_bytes()
    file.write_bytes(b"cut off")
    options = IdAugOptions(plans=(OptionPlan(3, 1.0),), min_similarity=-1)
    assert make_id_augs(train, options, SET, models=models()).failed == 1
    file.write_bytes(content)
    assert make_id_augs(train, options, SET, models=models()).made == 0
    again = make_id_augs(train, options, SET, redo_failed=True, models=models())
    assert (again.made, again.failed, again.passes[0].made) == (1, 0, 12)


def test_what_is_missing_is_said_with_the_way_to_it(train):
    with train.write() as session:
        texture = session.scalar(select(Recipe).where(Recipe.config["kind"].as_string() == "texture"))
        session.execute(delete(Outcome).where(Outcome.recipe_id == texture.id))
        session.execute(delete(Candidate).where(Candidate.recipe_id == texture.id))
    with pytest.raises(NothingToAugment, match=r"launch\.py texture"):
        make_id_augs(train, IdAugOptions(), SET, models=models())
    with train.write() as session:
        session.execute(delete(Recipe).where(Recipe.id == texture.id))
    with pytest.raises(NothingToAugment, match="--options 1,3"):
        make_id_augs(train, IdAugOptions(), SET, models=models())
    with pytest.raises(NothingToAugment, match=r"drop above 9\.5"):
        make_id_augs(train, IdAugOptions(plans=BACKGROUND_ONLY, min_drop=9.5), SET, models=models())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"tries": 0}, "tries"),
        ({"min_similarity": 1.5}, "min_similarity"),
        ({"min_object_area": 2}, "min_object_area"),
        ({"plans": (OptionPlan(4),)}, "options"),
        ({"plans": (OptionPlan(1), OptionPlan(1))}, "options"),
        ({"plans": ()}, "options"),
        ({"plans": (OptionPlan(1, 1.5),)}, "rate of option 1"),
        ({"plans": (OptionPlan(1, 0.5, 0),)}, "Option 1"),
    ],
)
def test_options_out_of_range_are_named(values, named):
    with pytest.raises(RecipeError, match=named):
        IdAugOptions(**values)


def _pictures(count: int, size: tuple[int, int] = (224, 224)) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def test_clip_similarity_is_the_published_one_by_default(tmp_path):
    state = tiny_state_dict()
    weights = tmp_path / "clip.safetensors"
    save_file(state, weights)
    reference = OpenClipModel(state)
    pictures = _pictures(4)
    for normalise in (False, True):
        similarity = ClipSimilarity(weights, normalise=normalise, device="cpu")
        together = similarity.features(pictures)
        alone = np.concatenate([similarity.features([one]) for one in pictures])
        assert np.allclose(together, alone, atol=1e-5)
        for first, second in ((0, 1), (2, 3)):
            expected = image_similarity(reference, pictures[first], pictures[second], as_published=not normalise)
            assert float(together[first] @ together[second]) == pytest.approx(expected, abs=1e-5)
    default, proper = (ClipSimilarity(weights, normalise=n, device="cpu").fingerprint() for n in (False, True))
    assert default["input"] == "0..1, as published" and proper["input"] == "normalised"
    assert {**default, "input": ""} == {**proper, "input": ""}


def test_embedded_similarity_is_that_of_the_embedded_image_tower():
    from ospcoop.clip.efficientnet import load_efficientnet_lite0, to_input

    pictures = _pictures(2, (80, 96))
    features = EmbeddedSimilarity().features(pictures)
    maps = [load_efficientnet_lite0().features(to_input(one)).final.mean((1, 2)) for one in pictures]
    expected = F.cosine_similarity(maps[0], maps[1], dim=0)
    assert float(features[0] @ features[1]) == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(torch.from_numpy(features).norm(dim=1), torch.ones(2), atol=1e-5)


def test_a_similarity_is_found_by_its_scorers_name():
    assert isinstance(load_similarity("noop"), PixelSimilarity)
    with pytest.raises(UnknownBackend, match="clip_b32"):
        load_similarity("clip9")
    with pytest.raises(RecipeError, match="preprocessing of its own"):
        load_similarity("embedded_dual", normalise=True)


def test_the_photos_are_those_of_the_set_alone(train):
    small = sample_fewshot(train, 1, 1)
    inside = {one.source_id for one in candidates(train, Kind.BACKGROUND)} & _members(train, small.set_id)
    result = make_id_augs(
        train,
        IdAugOptions(plans=(OptionPlan(1, 1.0), OptionPlan(2, 1.0)), min_similarity=-1),
        small.set_id,
        models=models(),
    )
    assert result.images == 2
    every = by_id(train)
    for one in candidates(train, Kind.ID_AUG):
        ground = every[one.details["background_candidate_id"]]
        assert {one.source_id, ground.source_id} <= inside
        assert sources(train)[ground.source_id].class_index != one.class_index


def _members(workspace: Workspace, set_id: int) -> set[int]:
    from db.training_guard import in_set

    with workspace.read() as session:
        return set(session.scalars(in_set(set_id)))
