"""Evaluation from end to end on a tiny CLIP: what is computed, what is not computed again, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pyarrow import parquet
from sqlalchemy import func, select

from app.jobs.training import train as train_job
from db.models import Evaluation, FewShotItem, SourceImage, Split
from db.progress import Cancelled, NoProgress
from db.training_guard import ValInTraining
from db.workspace import open_workspace
from generation.sources import open_source
from ospcoop import runs
from ospcoop.detectors import DETECTORS
from ospcoop.evaluation.by_class import by_class
from ospcoop.evaluation.guard import TrainedOnTheTest
from ospcoop.evaluation.prompts import for_classes
from ospcoop.evaluation.published_selection import OnTestSets
from ospcoop.evaluation.request import DETECTOR_LABELS, EvaluationError, EvaluationRequest
from ospcoop.evaluation.scores_file import read_scores
from ospcoop.evaluation.sets import CLASSIC_NAMES, Readers, register, resolve
from ospcoop.evaluation.tables import classic_averages, over_seeds, results, sentences
from ospcoop.images import SQUASHED, squash
from ospcoop.metrics import auroc, fpr95_id_pos
from ospcoop.prompts import load_prompt
from ospcoop.training import train_run
from tests.evaluation_material import (
    CLASSIC_IMAGES,
    FAST,
    READERS,
    VAL_PHOTOS,
    evaluation_material,
    request,
    run_request,
    train,
)
from tests.train_photos import CancelAfter
from tests.training_material import plan, tiny_encoder

SETS = (*CLASSIC_NAMES, "bg-v1")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return evaluation_material(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def workspace(material, tmp_path):
    shutil.copytree(material, tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def evaluated(material, tmp_path_factory):
    """Everything on everything: zero-shot and a run, both detectors, five sets."""
    root = tmp_path_factory.mktemp("evaluated") / "workspace"
    shutil.copytree(material, root)
    opened = open_workspace(root)
    report = run_request(opened, request(runs=("first",)))
    yield opened, report
    opened.close()


def rows_of(workspace, **narrowed):
    with workspace.read() as session:
        return results(session, **narrowed)


def test_zero_shot_and_the_run_meet_every_set(evaluated):
    workspace, report = evaluated
    assert (report.computed, report.reused, len(report.evaluations)) == (20, 0, 20)
    rows = rows_of(workspace)
    assert [row.ood_set for row in rows[::4]] == list(SETS)
    assert [(row.detector, row.run) for row in rows[:4]] == [
        ("GL-MCM", "zero-shot"),
        ("GL-MCM", "first"),
        ("MCM", "zero-shot"),
        ("MCM", "first"),
    ]
    assert {(row.id_images, row.ood_images, row.classes) for row in rows} == {(8, 3, 4), (8, 8, 4)}
    run = rows[1]
    assert (run.method, run.epoch, run.selection, run.seed, run.trained_classes) == ("OSPCoOp", 2, "last epoch", 1, 4)


def by_hand(workspace, name, words=None):
    """MCM, GL-MCM and the probabilities of a set's images, straight from their pixels."""
    encoder = tiny_encoder()
    whole, local = encoder.encode_image([one.image.open() for one in resolve(workspace, name, READERS).images])
    with workspace.read() as session:
        run = runs.find_run(session, "first")
    features = encoder.encode_text(words) if words else load_prompt(workspace, run).text_features(encoder)
    text_side = F.normalize(features, dim=-1)
    logits, patches = (encoder.logit_scale * F.normalize(one, dim=-1) @ text_side.T for one in (whole, local))
    mcm = -(logits / 100).softmax(-1).amax(-1)
    glmcm = mcm - 0.5 * (patches / 100).softmax(-1).flatten(1).amax(-1)
    return mcm.numpy(), glmcm.numpy(), logits.softmax(-1).numpy()


@pytest.mark.parametrize("run", ["zero-shot", "first"])
def test_the_scores_are_those_of_the_pixels(evaluated, run):
    workspace, _ = evaluated
    words = None
    if run == "zero-shot":
        words = [f"a photo of a {name}" for name in ("tench", "goldfish", "great white shark", "tiger shark")]
    for detector, place in (("MCM", 0), ("GL-MCM", 1)):
        (row,) = rows_of(workspace, runs=[run], detectors=[detector], sets=["SUN"])
        found = read_scores(workspace, row.scores)
        inside, outside = (by_hand(workspace, name, words) for name in ("val", "SUN"))
        expected = np.concatenate([inside[place], outside[place]])
        assert found["score"] == pytest.approx(expected, abs=2e-6)
        assert found["confidence"] == pytest.approx(np.concatenate([inside[2], outside[2]]).max(1), abs=1e-5)
        assert found["predicted"].tolist() == np.concatenate([inside[2], outside[2]]).argmax(1).tolist()
        assert list(found["role"]) == ["id"] * VAL_PHOTOS + ["ood"] * CLASSIC_IMAGES
        assert list(found["set"]) == ["val"] * VAL_PHOTOS + ["SUN"] * CLASSIC_IMAGES
        side = found["score"][:VAL_PHOTOS], found["score"][VAL_PHOTOS:]
        assert row.metrics["auroc"].value == auroc(*side)
        assert row.metrics["fpr95_id_pos"].value == fpr95_id_pos(*side)
        correct = found["predicted"][:VAL_PHOTOS] == found["class_index"][:VAL_PHOTOS]
        assert row.metrics["id_accuracy"].value == pytest.approx(correct.mean())
        assert row.metrics["auroc"].low <= row.metrics["auroc"].value <= row.metrics["auroc"].high


def test_the_file_says_which_image_each_score_is_of(evaluated):
    workspace, _ = evaluated
    row = rows_of(workspace, runs=["first"], sets=["bg-v1"])[0]
    table = parquet.read_table(workspace.path(row.scores)).to_pylist()
    with workspace.read() as session:
        photos = {one.id: one for one in session.scalars(select(SourceImage).where(SourceImage.split == Split.VAL))}
    for one in table[:VAL_PHOTOS]:
        photo = photos[one["source_id"]]
        assert (one["image"], one["sha256"], one["class_index"]) == (photo.name, photo.sha256, photo.class_index)
        assert one["candidate_id"] is None and one["photo_score"] is None
    for one in table[VAL_PHOTOS:]:
        assert photos[one["source_id"]].class_index == one["class_index"]
        assert one["candidate_id"] is not None and one["photo_score"] is not None
    with workspace.read() as session:
        key = session.get_one(Evaluation, row.evaluation).key
    assert parquet.read_schema(workspace.path(row.scores)).metadata[b"key"].decode() == key


def test_pairs_hold_each_background_against_its_own_photo(evaluated):
    workspace, _ = evaluated
    rows = [row for row in rows_of(workspace) if row.paired]
    assert {row.ood_set for row in rows} == {"bg-v1"}
    for row in rows:
        found = read_scores(workspace, row.scores)
        ood = found["role"] == "ood"
        rise = found["score"][ood].astype(float) - found["photo_score"][ood]
        assert row.paired.pairs == row.paired.sources == VAL_PHOTOS
        assert row.paired.lower.value == np.mean(rise < 0)
        assert row.paired.mean.value == pytest.approx(rise.mean())
        kept = found["predicted"][ood] == found["class_index"][ood]
        assert row.paired.kept_class.value == kept.mean()


def test_a_backgrounds_partner_is_its_photo_at_the_working_size(evaluated):
    workspace, _ = evaluated
    with workspace.read() as session:
        photos = {one.id: one for one in session.scalars(select(SourceImage))}
    for one in resolve(workspace, "bg-v1", READERS).images:
        expected = squash(open_source(photos[one.source_id]))
        assert np.array_equal(one.partner.open(), expected)
        assert one.partner.key == f"{photos[one.source_id].sha256}:{SQUASHED}"
        assert not np.array_equal(one.image.open(), expected)


def test_class_by_class(evaluated):
    workspace, _ = evaluated
    row = rows_of(workspace, runs=["first"], detectors=["MCM"], sets=["bg-v1"])[0]
    found = read_scores(workspace, row.scores)
    lines = by_class(workspace, row.scores)
    assert [(one.class_index, one.id_images, one.bg_images) for one in lines] == [(index, 2, 2) for index in range(4)]
    inside = found["role"] == "id"
    mine = found["class_index"] == 2
    assert lines[2].id_auroc == auroc(found["score"][inside & mine], found["score"][~inside])
    assert lines[2].bg_auroc == auroc(found["score"][inside], found["score"][~inside & mine])
    assert lines[2].accuracy == np.mean(found["predicted"][inside & mine] == 2)
    (classic,) = rows_of(workspace, runs=["first"], detectors=["MCM"], sets=["Places"])
    assert {(one.bg_images, one.bg_auroc) for one in by_class(workspace, classic.scores)} == {(0, None)}


def test_the_classic_average_leaves_bg_out(evaluated):
    workspace, _ = evaluated
    rows = rows_of(workspace)
    averages = classic_averages(rows)
    assert len(averages) == 4
    for average in averages:
        four = [r for r in rows if (r.run, r.detector) == (average.run, average.detector) and r.ood_set != "bg-v1"]
        assert len(four) == 4
        assert average.metrics["auroc"] == pytest.approx(np.mean([row.metrics["auroc"].value for row in four]))
    assert classic_averages([row for row in rows if row.ood_set != "Textures"]) == []


def closed(*_):
    raise AssertionError("an image was opened, or the image tower was run")


def test_a_second_detector_touches_no_image(workspace, monkeypatch):
    run_request(workspace, request(runs=("first",), detectors=("gl-mcm",), ood_sets=("SUN", "bg-v1")))
    monkeypatch.setattr(tiny_encoder(), "encode_image", closed)
    nobody = Readers(closed, closed)
    report = run_request(
        workspace, request(runs=("first",), detectors=("mcm",), ood_sets=("SUN", "bg-v1")), readers=nobody
    )
    assert report.computed == 4


def test_what_was_computed_is_found_again(evaluated, monkeypatch):
    workspace, report = evaluated
    monkeypatch.setattr("ospcoop.evaluation.evaluate.Scorer", closed)
    again = run_request(workspace, request(runs=("first",)))
    assert (again.evaluations, again.computed, again.reused) == (report.evaluations, 0, 20)
    some = run_request(workspace, request(detectors=("mcm",), ood_sets=("SUN",)))
    assert some.reused == 1 and set(some.evaluations) < set(report.evaluations)


@pytest.mark.parametrize(
    "changed", [{"temperature": 2.0}, {"seed": 1}, {"resamples": 51}, {"feature_storage": "float16"}]
)
def test_what_decides_the_numbers_makes_another_evaluation(workspace, changed):
    asked = {"detectors": ("mcm",), "ood_sets": ("SUN",)}
    first = run_request(workspace, request(**asked))
    other = run_request(workspace, request(**asked, **changed))
    assert other.computed == 1 and other.evaluations != first.evaluations
    labels = {row.detector for row in rows_of(workspace)}
    assert labels == ({"MCM", "MCM T=2"} if "temperature" in changed else {"MCM"})


def test_a_lost_scores_file_is_made_again(workspace):
    asked = request(detectors=("mcm",), ood_sets=("SUN",))
    first = run_request(workspace, asked)
    (row,) = rows_of(workspace)
    before = workspace.path(row.scores).read_bytes()
    workspace.path(row.scores).unlink()
    again = run_request(workspace, asked)
    assert again.computed == 1 and again.evaluations == first.evaluations
    assert workspace.path(row.scores).read_bytes() == before


def test_cancelled_anywhere_it_goes_on_to_the_same_numbers(workspace, evaluated):
    asked = request(runs=("first",))
    kept = []
    for _ in range(100):
        progress = CancelAfter(2 + len(kept))
        try:
            report = run_request(workspace, asked, progress=progress)
            break
        except Cancelled:
            with workspace.read() as session:
                kept.append(session.scalar(select(func.count()).select_from(Evaluation)))
    assert kept == sorted(kept) and len(set(kept)) > 3, "it was stopped at several points and lost nothing"
    assert report.reused == kept[-1] and report.computed == 20 - kept[-1]
    ours, theirs = (
        [(row.run, row.detector, row.ood_set, row.metrics, row.paired) for row in rows_of(one)]
        for one in (workspace, evaluated[0])
    )
    assert ours == theirs
    assert not list(workspace.path("evaluation").rglob("*.part"))


def test_only_detectors_that_look_at_patches_have_them_stored(workspace):
    shutil.rmtree(workspace.root / "cache/features")
    run_request(workspace, request(detectors=("mcm",), ood_sets=("SUN",)))
    stored = list((workspace.root / "cache/features").rglob("*.npy"))
    assert stored and all(path.name.endswith(".whole.npy") for path in stored)
    run_request(workspace, request(detectors=("gl-mcm",), ood_sets=("SUN",)))
    assert list((workspace.root / "cache/features").rglob("*.local.npy"))


def test_runs_of_two_seeds_have_a_mean_and_a_spread(workspace):
    train(workspace, replace(FAST, seed=2), name="second")
    train(workspace, replace(FAST, seed=2, lr=0.01), name="other")
    run_request(workspace, request(runs=("first", "second", "other"), detectors=("mcm",), ood_sets=("SUN",)))
    rows = {row.run: row for row in rows_of(workspace)}
    assert rows["first"].series == rows["second"].series != rows["other"].series
    (series,) = over_seeds(list(rows.values()))
    assert (series.runs, series.seeds, series.method) == (("first", "second"), (1, 2), "OSPCoOp")
    values = [rows[name].metrics["auroc"].value for name in ("first", "second")]
    assert series.mean["auroc"] == pytest.approx(np.mean(values))
    assert series.spread["auroc"] == pytest.approx(np.std(values, ddof=1))


def test_the_published_selection_takes_the_epoch_that_is_best_on_the_tests_and_says_so(workspace):
    options = replace(FAST, selection="test", epochs=3, lr=0.5)
    run = plan(workspace, options, name="chosen").run
    with pytest.raises(runs.RunError, match="on the test sets"):
        train_run(workspace, run.id, tiny_encoder(), open_source, NoProgress())
    metrics = OnTestSets(workspace, run, tiny_encoder(), READERS, NoProgress())
    result = train_run(workspace, run.id, tiny_encoder(), open_source, NoProgress(), epoch_metrics=metrics)
    with workspace.read() as session:
        found = [epoch.metrics for epoch in runs.epochs_of(session, run.id)]
    means = [np.mean([one[f"auroc {name}"] for name in CLASSIC_NAMES]) for one in found]
    assert [one["test_auroc"] for one in found] == pytest.approx(means)
    assert "auroc bg-v1" not in found[0]
    assert result.chosen_epoch == int(np.argmax(means))
    run_request(workspace, request(runs=("chosen",), detectors=("gl-mcm",)))
    rows = rows_of(workspace, runs=["chosen"])
    assert {row.selection for row in rows} == {"as published: chosen on the test sets"}
    average = np.mean([row.metrics["auroc"].value for row in rows if row.group == "classic"])
    assert average == pytest.approx(means[result.chosen_epoch]), "the same numbers that it was chosen by"
    assert any("Chosen on the test sets, as published, and so too good: chosen." in one for one in sentences(rows))


def test_the_published_selection_without_a_test_set_fails_the_run_and_says_what_to_do(workspace, monkeypatch):
    monkeypatch.setattr("app.encoders.load_encoder", lambda *_args, **_options: tiny_encoder())
    monkeypatch.setattr("ospcoop.evaluation.published_selection.default_ood_sets", lambda _session: [])
    run = plan(workspace, replace(FAST, selection="test"), name="alone").run
    with pytest.raises(EvaluationError, match="freeze a build"):
        train_job(workspace, {"run": run.id}, NoProgress())
    with workspace.read() as session:
        kept = runs.find_run(session, "alone")
    assert kept.state == runs.FAILED and "freeze a build" in kept.error


def test_a_run_is_not_tested_on_its_training_photos(workspace, material):
    register(workspace, "seen", material.parent / "photos", READERS.decode, NoProgress(), role="id")
    with pytest.raises(TrainedOnTheTest, match="first was trained on 16 of the 16 images of seen"):
        run_request(workspace, request(runs=("first",), id_set="seen", ood_sets=("SUN",)))
    assert run_request(workspace, request(id_set="seen", ood_sets=("SUN",))).computed == 2, "zero-shot saw none"


def test_bg_is_refused_to_a_run_that_saw_val(workspace):
    with workspace.read() as session:
        source = session.scalar(select(FewShotItem.source_id).limit(1))
    with workspace.write() as session:
        session.get_one(SourceImage, source).split = Split.VAL
    with pytest.raises(ValInTraining, match="is in few-shot set 1 but is a val source"):
        run_request(workspace, request(runs=("first",), ood_sets=("bg-v1",)))
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Evaluation)) == 0


def test_an_unfinished_run_and_an_empty_choice_are_refused(workspace):
    run = plan(workspace, replace(FAST, seed=9), name="waiting").run
    with pytest.raises(EvaluationError, match="Run waiting is queued: only a finished run"):
        run_request(workspace, request(runs=(run.name,)))
    with pytest.raises(EvaluationError, match="SUN is an OOD set and was given as ID set"):
        run_request(workspace, request(id_set="SUN"))
    with pytest.raises(EvaluationError, match="NegLabel needs negative labels: give --labels"):
        request(detectors=("neglabel",))
    with pytest.raises(EvaluationError, match="no detector called 'energy'"):
        request(detectors=("energy",))


WORDS = {
    "noun.animal.txt": ["aardvark", "tench", "snow_leopard", "ibis", "newt", "gnu", "okapi", "moth", "wasp", "crane"],
    "noun.food.txt": ["bread", "cheese", "rice", "soup", "stew", "jam", "honey", "salt", "lentil", "oat", "rye"],
    "adj.all.txt": [
        "red",
        "slow",
        "wet",
        "round",
        "loud",
        "old",
        "dry",
        "thin",
        "mild",
        "dim",
        "raw",
        "odd",
        "shy",
        "fat",
    ],
}


def test_word_lists_bring_neglabel_csp_and_negrefine(workspace, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    for name, words in WORDS.items():
        (folder / name).write_text("\n".join(words))
    names = ("neglabel", "csp", "negrefine")
    report = run_request(workspace, request(detectors=names, ood_sets=("SUN",), labels=str(folder)))
    assert report.computed == 3
    assert {row.detector for row in rows_of(workspace)} == {"NegLabel", "CSP", "NegRefine"}
    listed = tmp_path / "labels.txt"
    listed.write_text("red fox\nTench\n\nsnow_plough\nred fox\n")
    other = run_request(workspace, request(detectors=("neglabel",), ood_sets=("SUN",), labels=str(listed)))
    assert other.computed == 1, "other labels, another evaluation"
    listed.write_text("Tench\n")
    with pytest.raises(EvaluationError, match="gives no negative label"):
        run_request(workspace, request(detectors=("csp",), ood_sets=("SUN",), labels=str(listed)))


def test_every_detector_has_a_label():
    assert set(DETECTOR_LABELS) == set(DETECTORS)


def test_a_request_goes_through_a_job_as_it_is():
    asked = request(runs=("a", "b"), ood_sets=("SUN",), temperature=2.0)
    assert EvaluationRequest.from_dict(json.loads(json.dumps(asked.as_dict()))) == asked
    with pytest.raises(EvaluationError, match="Unknown option of an evaluation: colour"):
        EvaluationRequest.from_dict({"colour": "red"})


def test_a_shared_context_fits_other_classes_and_one_of_its_own_does_not(workspace):
    train(workspace, replace(FAST, class_specific=True, epochs=1), name="own")
    with workspace.read() as session:
        shared, own = (load_prompt(workspace, runs.find_run(session, name)) for name in ("first", "own"))
    other = replace(shared.classes, indices=(1, 7), wnids=("n01443537", "n01514668"), names=("goldfish", "cock"))
    assert for_classes(shared, other).text_features(tiny_encoder()).shape == (2, 32)
    with pytest.raises(EvaluationError, match="none for 1 of the ID set's, as cock"):
        for_classes(own, other)
    two = replace(own.classes, indices=(2, 1), wnids=("n01484850", "n01443537"), names=own.classes.names[2:0:-1])
    expected = own.text_features(tiny_encoder())[[2, 1]]
    assert torch.allclose(for_classes(own, two).text_features(tiny_encoder()), expected, atol=1e-6)
