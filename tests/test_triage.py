"""Triage: what it learns from, that nothing leaks, its versions, its bands, and the way to the page."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update
from typer.testing import CliRunner

from app.cli import app as command_line
from app.jobs import find_handler
from app.jobs.review import queue_triage
from app.review_routes import review_router
from app.triage_routes import triage_router
from app.triage_watch import TriageWatch
from benchmarks.synthetic_review import make_labelled_set
from benchmarks.triage import FIRST, Replay
from db import jobs
from db.models import (
    Adjudication,
    AutoVerdict,
    Candidate,
    Decision,
    GoldItem,
    Job,
    JobState,
    Role,
    SourceImage,
    TriagePrediction,
    User,
    Verdict,
)
from db.progress import NoProgress
from db.workspace import open_workspace
from review.decisions import DecisionEvent, record
from review.filters import QueueFilter, QueueState
from review.intervals import upper_bound
from review.leases import take_page
from review.orders import Order
from review.progress import progress
from review.queue import next_items
from review.triage.agreeing import FOLDS, LOOK_ALIKE_BITS, count_folds, deal_folds
from review.triage.bands import BandError, find_band, propose_bands
from review.triage.confirmed import active_band, auto_counts, auto_where, confirm_bands, confirmed_bands, revoke_band
from review.triage.features import FEATURE_NAMES, FeatureTable, feature_table, principal_components
from review.triage.labels import Cutoff, labels_at
from review.triage.learners import CALIBRATIONS, LEARNERS
from review.triage.model import TooFewVerdicts, fit
from review.triage.order import CHECK_EVERY, SURE_BELOW, is_surprising, review_priority, uncertainty
from review.triage.quality import expected_calibration_error, quality, reliability
from review.triage.shapes import mask_shape
from review.triage.surprising import surprising_verdicts
from review.triage.training import due_after, retrain_state, retraining_difference, should_retrain, train
from tests.conftest import ROOT
from tests.judged_material import make_candidates, new_candidate, say, user_id_of, write_images

# ---- features ----


def test_known_shapes():
    square = np.zeros((20, 30), np.uint8)
    square[5:15, 5:15] = 255
    assert mask_shape(square) == (1.0, 1.0, 0.0)
    two = square.copy()
    two[0, 20:30] = 1  # ten of the 96 border pixels, a component of its own
    assert mask_shape(two)[1:] == (2.0, pytest.approx(10 / 96))
    corner = np.zeros((21, 21), np.uint8)
    corner[10, :], corner[:, 10] = 255, 255
    solidity, components, contact = mask_shape(corner)
    # A plus sign of 41 pixels in a diamond of 221; it meets the border at four of 80 pixels.
    assert (solidity, components, contact) == (pytest.approx(41 / 221), 1.0, pytest.approx(4 / 80))
    assert np.isnan(mask_shape(np.zeros((5, 5), np.uint8))[0]) and mask_shape(np.full((5, 5), 9, np.uint8)) == (1, 1, 1)


def test_a_candidate_as_numbers(workspace):
    material = make_candidates(workspace, 3)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    write_images(workspace, material.ids[0], mask=mask)
    with workspace.write() as session:
        first = session.get(Candidate, material.ids[0])
        first.rank, first.probability = 10, 0.2
        first.residual_boxes = [{"confidence": 0.3}, {"confidence": 0.4}]
        session.get(Candidate, material.ids[1]).boxes = []
        texture = new_candidate(session.get(SourceImage, first.source_id), material.recipe_id, 9)
        texture.kind = "texture"
        session.add(texture)
    table = feature_table(workspace, material.recipe_id, NoProgress())
    assert table.candidate_ids.tolist() == material.ids and table.names == FEATURE_NAMES, "background only"
    row = dict(zip(table.names, table.values[0], strict=True))
    assert row["log_rank"] == pytest.approx(np.log(10)) and row["probability_logit"] == pytest.approx(np.log(0.2 / 0.8))
    assert (row["boxes"], row["best_box"], row["residual_boxes"], row["best_residual_box"]) == (1, 0.7, 2, 0.4)
    assert (row["solidity"], row["components"], row["edge_contact"]) == (1.0, 1.0, 0.0)
    second = dict(zip(table.names, table.values[1], strict=True))
    assert (
        second["boxes"] == 0 and np.isnan([second[name] for name in ("best_box", "residual_boxes", "solidity")]).all()
    )


def test_masks_are_measured_once(workspace, monkeypatch):
    material = make_candidates(workspace, 4)
    for candidate_id in material.ids[:3]:
        write_images(workspace, candidate_id, mask=np.full((8, 8), 255, np.uint8))
    first = feature_table(workspace, material.recipe_id, NoProgress()).values
    asked = []
    monkeypatch.setattr("review.triage.shapes.mask_shape", lambda mask: asked.append(1) or (0.5, 2.0, 0.25))
    write_images(workspace, material.ids[3], mask=np.full((8, 8), 255, np.uint8))
    again = feature_table(workspace, material.recipe_id, NoProgress()).values
    assert len(asked) == 1 and np.array_equal(first[:3], again[:3], equal_nan=True)
    assert again[3, FEATURE_NAMES.index("solidity")] == 0.5
    (workspace.root / f"cache/triage/shapes-{material.recipe_id}.npz").write_bytes(b"damaged")
    feature_table(workspace, material.recipe_id, NoProgress())
    assert len(asked) == 5


class ClipLike:
    """Fifty columns for even ids, nothing for odd ones."""

    name = "clip"

    def __call__(self, candidate_ids):
        values = np.random.default_rng(0).normal(size=(len(candidate_ids), 50))
        return np.where(candidate_ids[:, None] % 2 == 0, values, np.nan)


def test_extra_features_come_as_principal_components(workspace):
    material = make_candidates(workspace, 60)
    table = feature_table(workspace, material.recipe_id, NoProgress(), ClipLike())
    assert table.names[-1] == "clip_15" and table.values.shape[1] == len(FEATURE_NAMES) + 16
    parts = table.values[:, len(FEATURE_NAMES) :]
    assert (np.isnan(parts).all(axis=1) == (table.candidate_ids % 2 == 1)).all()


def test_principal_components_keep_the_distances():
    flat = np.random.default_rng(0).normal(size=(40, 3)) @ np.random.default_rng(1).normal(size=(3, 30))
    parts = principal_components(flat, most=3)

    def distances(x):
        return np.linalg.norm(x[:, None] - x[None], axis=-1)

    assert np.allclose(distances(parts), distances(flat))
    assert (parts.var(axis=0) == np.sort(parts.var(axis=0))[::-1]).all()


# ---- what people said ----


def undo_last(workspace, user_id):
    record(workspace, [DecisionEvent(str(uuid.uuid4()), "undo")], user_id)


def labels_now(workspace, material, cutoff=None):
    with workspace.read() as session:
        return labels_at(session, material.recipe_id, cutoff or Cutoff.now(session))


def test_labels_are_majorities_below_gold_below_adjudication(workspace):
    material = make_candidates(workspace, 8)
    a, b, c = (user_id_of(workspace, name) for name in "abc")
    k = material.ids
    say(workspace, {k[0]: True, k[1]: True, k[2]: False, k[3]: True, k[4]: True, k[5]: True, k[6]: True}, a)
    say(workspace, {k[0]: True, k[1]: False, k[2]: False, k[3]: False, k[4]: None, k[5]: False}, b)
    say(workspace, {k[3]: False, k[7]: None}, c)
    assert labels_now(workspace, material) == {k[0]: True, k[2]: False, k[3]: False, k[4]: True, k[6]: True}
    with workspace.read() as session:
        before = Cutoff.now(session)
    with workspace.write() as session:
        session.add(GoldItem(candidate_id=k[6], verdict=Verdict.REJECT))
        session.add(GoldItem(candidate_id=k[5], verdict=Verdict.REJECT))
        for number, verdict in enumerate([Verdict.REJECT, Verdict.ACCEPT]):
            session.add(adjudication(k[5], a, verdict, number))
        session.add(adjudication(k[0], a, Verdict.REJECT, 2))
        session.flush()
        session.add(adjudication(k[0], a, Verdict.UNDO, 3))
    after = {k[0]: True, k[2]: False, k[3]: False, k[4]: True, k[5]: True, k[6]: False}
    assert labels_now(workspace, material) == after
    undo_last(workspace, b)  # b's reject of k[5]
    undo_last(workspace, a)  # a's accept of k[6]
    assert labels_now(workspace, material, before) == {k[0]: True, k[2]: False, k[3]: False, k[4]: True, k[6]: True}


def adjudication(candidate_id, user_id, verdict, number) -> Adjudication:
    return Adjudication(
        uuid=str(uuid.UUID(int=number)),
        candidate_id=candidate_id,
        user_id=user_id,
        verdict=verdict,
        result_sha256="0" * 64,
    )


@settings(max_examples=8, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from([True, False, None, "undo"]))))
def test_labels_at_a_moment_are_what_they_were(tmp_path_factory, steps):
    workspace = open_workspace(tmp_path_factory.mktemp("moments") / "workspace")
    material = make_candidates(workspace, 4)
    users = [user_id_of(workspace, name) for name in "ab"]
    seen = []
    for candidate, user, verdict in steps:
        if verdict == "undo":
            undo_last(workspace, users[user])
        else:
            say(workspace, {material.ids[candidate]: verdict}, users[user])
        with workspace.read() as session:
            cutoff = Cutoff.now(session)
        seen.append((Cutoff.from_json(cutoff.to_json()), labels_now(workspace, material, cutoff)))
    assert all(labels_now(workspace, material, cutoff) == labels for cutoff, labels in seen)
    workspace.close()


# ---- no leaks ----


def random_set(count, seed=0, classes=20):
    """Numbers, classes, hashes and verdicts that have nothing to do with each other."""
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 2**64, count // 4, dtype=np.uint64).repeat(4)[:count]
    table = FeatureTable(
        np.arange(count), ("a", "b"), draw.normal(size=(count, 2)), draw.integers(0, classes, count), hashes
    )
    return table, (draw.random(count) < 0.6).astype(np.int8)


def test_verdicts_without_a_pattern_teach_nothing(monkeypatch):
    """Shares of one's own class and look-alikes would give a verdict away if it were among them."""
    monkeypatch.delitem(LEARNERS, "gradient_boosting")
    found = []
    for seed in range(4):
        table, verdicts = random_set(600, seed, classes=100)
        found.append(fit(table, verdicts, seed=seed, diagnostics=False).metrics["auroc"])
    assert 0.46 < np.mean(found) < 0.54 and max(found) < 0.6


def test_scores_turned_upside_down_are_not_turned_over():
    scores, truth = np.linspace(-3, 3, 200), (np.arange(200) < 100).astype(int)
    for calibration in CALIBRATIONS.values():
        falling, rising = calibration(scores, truth)(scores), calibration(scores, 1 - truth)(scores)
        assert np.allclose(falling, 0.5) and (np.diff(rising) >= 0).all() and rising[-1] > 0.9 > 0.1 > rising[0]


def test_a_row_never_sees_its_own_verdict():
    table, verdicts = random_set(80)
    folds = deal_folds(verdicts, 0)
    use = folds[:, None] != np.arange(FOLDS)

    def columns(said):
        return count_folds(table.class_indices, table.hashes, said, folds).columns(np.arange(len(said)), use)

    usual = columns(verdicts)
    for row in range(0, 80, 7):
        turned = verdicts.copy()
        turned[row] = 1 - turned[row]
        changed = columns(turned)
        same_fold = folds == folds[row]
        assert np.array_equal(usual[same_fold], changed[same_fold]), "nor does any row that is tested with it"
        assert not np.array_equal(usual, changed)


def test_shares_of_class_and_look_alikes_are_counted_right():
    hashes = np.array([0, 2**LOOK_ALIKE_BITS - 1, 2 ** (LOOK_ALIKE_BITS + 1) - 1, 2**64 - 2**40], np.uint64)
    verdicts = np.array([-1, 1, 1, 0], np.int8)
    folds = np.array([-1, 0, 1, 2])
    counts = count_folds(np.array([7, 7, 3, 7]), hashes, verdicts, folds)
    of_class, of_alike, alike = counts.columns(np.array([0]), np.ones((1, FOLDS), bool))[0]
    prior = (2 + 1) / (3 + 2)
    assert of_class == pytest.approx((1 + 10 * prior) / (2 + 10)), "rows 1 and 3"
    assert (of_alike, alike) == (pytest.approx((1 + prior) / 2), pytest.approx(np.log(2))), (
        "row 1; row 2 is a bit too far"
    )
    without = counts.columns(np.array([0]), np.array([[False, True, True, True, True]]))[0]
    prior = (1 + 1) / (2 + 2)
    assert without.tolist() == pytest.approx([(0 + 10 * prior) / (1 + 10), prior, 0])


@settings(max_examples=30, deadline=None)
@given(
    verdicts=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=80),
    hashes=st.lists(st.integers(0, 2**14 - 1), min_size=80, max_size=80),
)
def test_look_alikes_are_those_within_ten_bits(verdicts, hashes):
    verdicts = np.array(verdicts, np.int8)
    hashes = np.array(hashes[: len(verdicts)], np.uint64)
    folds = deal_folds(verdicts, 0)
    counts = count_folds(np.zeros(len(verdicts), int), hashes, verdicts, folds)
    for row, own in enumerate(hashes.tolist()):
        near = [i for i, other in enumerate(hashes.tolist()) if (own ^ other).bit_count() <= LOOK_ALIKE_BITS]
        for fold in range(FOLDS):
            inside = [verdicts[i] for i in near if folds[i] == fold]
            assert (counts.alike_judged[row, fold], counts.alike_accepts[row, fold]) == (len(inside), sum(inside))


# ---- the model ----


def test_known_qualities():
    truth, p = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.6, 0.1])
    values = quality(truth, p)
    assert values["auroc"] == 0.75 and values["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert values["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())
    # Two bins: 0.1 and 0.4 with one accept of two, 0.6 and 0.9 likewise; gaps of 0.25 each.
    assert expected_calibration_error(truth, p, bins=2) == pytest.approx(0.25)
    assert [(part["judged"], part["accepted"]) for part in reliability(truth, p, bins=2)] == [(2, 0.5), (2, 0.5)]
    assert reliability(np.array([1]), np.array([1.0]))[0]["upper"] == 1.0


@pytest.fixture(scope="module")
def learnt():
    """A made-up set of which 400 are judged, and the fit with all its diagnostics."""
    labelled = make_labelled_set(1200, seed=3)
    verdicts = np.full(1200, -1, np.int8)
    verdicts[:400] = labelled.verdicts[:400]
    return labelled, verdicts, fit(labelled.table, verdicts, seed=1)


def test_it_learns_what_there_is_to_learn(learnt):
    labelled, verdicts, fitted = learnt
    rest = verdicts < 0
    assert quality(labelled.truth[rest], fitted.p_accept[rest])["auroc"] > 0.95
    assert fitted.metrics["accepted"] + fitted.metrics["rejected"] == 400
    assert fitted.metrics["algorithm"] == min(fitted.metrics["algorithms"], key=fitted.metrics["algorithms"].get)
    assert expected_calibration_error(labelled.verdicts[rest], fitted.p_accept[rest]) < 0.06
    assert sum(part["judged"] for part in fitted.metrics["reliability"]) == 400
    assert np.array_equal(fitted.is_unjudged, rest)


def test_the_learning_curve_rises_and_what_matters_is_named(learnt):
    _, _, fitted = learnt
    curve = fitted.metrics["learning_curve"]
    assert [point["share"] for point in curve] == [0.1, 0.2, 0.5, 1.0] and curve[-1]["judged"] == 400
    assert curve[-1]["auroc"] == fitted.metrics["auroc"] > curve[0]["auroc"]
    growth = {entry["feature"]: entry["log_loss_growth"] for entry in fitted.metrics["importances"]}
    assert set(growth) == set(fitted.feature_names)
    assert max(growth["solidity"], growth["components"]) > growth["logit_source"], "which is noise in this set"


def test_the_same_verdicts_and_seed_give_the_same_model(learnt):
    labelled, verdicts, fitted = learnt
    again = fit(labelled.table, verdicts, seed=1, diagnostics=False)
    assert np.array_equal(again.p_accept, fitted.p_accept)
    other = fit(labelled.table, verdicts, seed=2, diagnostics=False)
    assert not np.array_equal(other.p_accept, fitted.p_accept)


def test_a_judged_candidates_own_verdict_does_not_move_its_prediction(learnt):
    """Out of fold: had its verdict been the other, only others' predictions could tell."""
    labelled, verdicts, fitted = learnt
    row = int(np.flatnonzero(verdicts == 1)[0])
    rejects = np.flatnonzero(verdicts == 0)
    turned = verdicts.copy()
    swap = int(rejects[0])
    turned[[row, swap]] = turned[[swap, row]]
    again = fit(labelled.table, turned, seed=1, diagnostics=False)
    assert abs(again.p_accept[row] - fitted.p_accept[row]) < 0.2


@pytest.mark.parametrize(("accepted", "rejected"), [(19, 100), (100, 19), (0, 0)])
def test_too_few_verdicts_are_named(accepted, rejected):
    table, verdicts = random_set(200)
    verdicts[:] = -1
    verdicts[:accepted], verdicts[accepted : accepted + rejected] = 1, 0
    with pytest.raises(TooFewVerdicts, match=f"so far there are {accepted} and {rejected}"):
        fit(table, verdicts)


# ---- the order ----


def test_uncertain_ones_first_with_a_sure_one_in_every_five():
    p = np.concatenate([np.linspace(0.3, 0.7, 40), np.full(60, 0.99)])
    is_open = np.ones(100, bool)
    is_open[:4] = False
    priority = review_priority(p, is_open, seed=0)
    order = np.argsort(-priority, kind="stable")
    order = order[is_open[order]]
    sure = uncertainty(p[order]) < SURE_BELOW
    assert [sure[start : start + CHECK_EVERY].sum() for start in range(0, 45, CHECK_EVERY)] == [1] * 9
    doubtful = uncertainty(p[order])[:45][~sure[:45]]
    assert (np.diff(doubtful) <= 0).all() and priority.min() >= 0 and priority.max() <= 1
    assert np.array_equal(priority, review_priority(p, is_open, seed=0))
    assert not np.array_equal(priority, review_priority(p, is_open, seed=1))


def test_surprises_are_verdicts_far_from_the_prediction():
    verdicts, p = np.array([1, 0, 1, 0, -1]), np.array([0.1, 0.9, 0.2, 0.8, 0.0])
    assert is_surprising(verdicts, p).tolist() == [True, True, False, False, False]


# ---- bands ----


def band_set(errors, count=1000):
    """``count`` judged candidates at 0.99, ``errors`` of them rejected, and 500 that nobody looked at."""
    p = np.concatenate([np.full(count, 0.99), np.full(500, 0.995)])
    verdicts = np.concatenate([np.ones(count), np.full(500, -1)]).astype(np.int8)
    verdicts[:errors] = 0
    return p, verdicts, verdicts < 0


def test_a_band_is_proposed_only_within_its_bound():
    p, verdicts, is_open = band_set(errors=4)
    assert upper_bound(4, 1000) == pytest.approx(0.00913, abs=1e-5)
    band = find_band(Verdict.ACCEPT, p, verdicts, is_open, 0.01)
    assert (band.threshold, band.judged, band.errors, band.candidates) == (0.99, 1000, 4, 500)
    assert band.upper == upper_bound(4, 1000) and band.expected == pytest.approx(0.005)
    assert upper_bound(5, 1000) > 0.01 and find_band(Verdict.ACCEPT, *band_set(errors=5), 0.01) is None
    assert find_band(Verdict.ACCEPT, *band_set(errors=0, count=298), 0.01) is None, "299 without an error would do"
    assert find_band(Verdict.ACCEPT, *band_set(errors=0, count=299), 0.01).errors == 0
    assert find_band(Verdict.REJECT, p, verdicts, is_open, 0.4) is None, "nothing lies below one half"


def test_the_widest_band_within_the_bound_is_taken():
    draw = np.random.default_rng(0)
    p = draw.random(6000)
    verdicts = (draw.random(6000) < p).astype(np.int8)
    is_open = np.zeros(6000, bool)
    accept = find_band(Verdict.ACCEPT, p, verdicts, is_open, 0.1)
    reject = find_band(Verdict.REJECT, p, verdicts, is_open, 0.1)
    # Calibrated and uniform: above t the error is (1 - t) / 2 on average, so t = 0.8 gives a tenth.
    assert 0.8 < accept.threshold < 0.86 and 0.14 < reject.threshold < 0.2
    for band, inside, wrong in ((accept, p >= accept.threshold, 0), (reject, p < reject.threshold, 1)):
        assert (band.judged, band.errors) == (inside.sum(), (verdicts[inside] == wrong).sum())
        assert band.upper <= 0.1


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    workspace = open_workspace(tmp_path_factory.mktemp("triage") / "workspace")
    material = make_candidates(workspace, 300)
    user = user_id_of(workspace)
    say(workspace, dict(list(zip(material.ids, material.good, strict=True))[:240]), user)
    model = train(workspace, material.recipe_id).model
    workspace.close()
    return workspace.root, material, user, model


@pytest.fixture
def trained(trained_once, tmp_path):
    """300 candidates, 240 judged by one annotator as they are, and a model; the last 60 are open. A copy a test."""
    root, material, user, model = trained_once
    workspace = open_workspace(shutil.copytree(root, tmp_path / "copy"))
    yield workspace, material, user, model
    workspace.close()


def stored(workspace) -> dict[int, TriagePrediction]:
    with workspace.read() as session:
        return {row.candidate_id: row for row in session.scalars(select(TriagePrediction))}


def test_a_version_holds_its_figures_and_predicts_everything(trained):
    workspace, material, _, model = trained
    assert (model.trained_on, model.last_decision_id) == (240, 240) and model.features[:1] == ["drop"]
    assert model.metrics["auroc"] > 0.95 and model.metrics["cutoff"]["decision_id"] == 240
    rows = stored(workspace)
    assert list(rows) == material.ids and {row.model_id for row in rows.values()} == {model.id}
    good = np.array(material.good[240:])
    assert quality(good, np.array([rows[key].p_accept for key in material.ids[240:]]))["auroc"] > 0.95


def test_training_again_makes_a_version_only_if_something_changed(trained):
    workspace, material, user, model = trained
    assert not train(workspace, material.recipe_id).is_new
    assert train(workspace, material.recipe_id, seed=5).is_new
    say(workspace, {material.ids[250]: True}, user)
    newest = train(workspace, material.recipe_id)
    assert newest.is_new and newest.model.id > model.id
    assert {row.model_id for row in stored(workspace).values()} == {newest.model.id}
    with workspace.write() as session:
        source = session.get(SourceImage, session.get(Candidate, material.ids[0]).source_id)
        session.add(new_candidate(source, material.recipe_id, 999, variant=1))
    assert train(workspace, material.recipe_id).is_new, "a candidate without a prediction"


def test_a_version_is_made_again_from_what_it_names(trained):
    """No model is stored: the last decision and the seed make it anew, whatever was decided since."""
    workspace, material, user, model = trained
    before = {key: row.p_accept for key, row in stored(workspace).items()}
    say(workspace, dict.fromkeys(material.ids[:30], False), user)
    undo_last(workspace, user)
    assert retraining_difference(workspace, model.id) == 0
    with workspace.write() as session:
        session.execute(update(TriagePrediction).values(p_accept=TriagePrediction.p_accept / 2))
    assert retraining_difference(workspace, model.id) == pytest.approx(max(before.values()) / 2)
    train(workspace, material.recipe_id)
    with pytest.raises(BandError, match="replaced by model"):
        retraining_difference(workspace, model.id)


def test_when_training_is_due(trained):
    workspace, material, user, _ = trained
    assert [due_after(count) for count in (0, 40, 600, 10_000, 90_000)] == [50, 50, 60, 1000, 2000]

    def state():
        with workspace.read() as session:
            return retrain_state(session, material.recipe_id), should_retrain(session, material.recipe_id)

    say(workspace, dict.fromkeys(material.ids[:49], None), user)
    assert state()[0].new_decisions == 49 and state()[1] is False
    assert queue_triage(workspace) is None
    say(workspace, {material.ids[0]: True}, user)
    assert state()[1] is True
    job_id = queue_triage(workspace, created_by="ann")
    assert job_id is not None and queue_triage(workspace) is None, "not twice"
    with workspace.write() as session:
        session.get(Job, job_id).state = JobState.FAILED
    assert queue_triage(workspace) is None, "not again at once after a failure"
    say(workspace, dict.fromkeys(material.ids[:50], None), user)
    assert queue_triage(workspace) is not None


def test_deciding_has_it_trained_again(trained):
    workspace, material, user, _ = trained
    app = FastAPI()
    app.include_router(review_router(workspace, lambda: user))
    client = TestClient(app)

    def waiting():
        with workspace.read() as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.kind == "triage"))

    say(workspace, dict.fromkeys(material.ids[:49], None), user)
    for count, expected in ((1, 1), (2, 1)):
        event = {"uuid": str(uuid.UUID(int=count)), "verdict": "undo"}
        answer = client.post("/api/review/decisions", json={"events": [event]})
        assert answer.json()[0]["status"] == "stored" and waiting() == expected


def test_decisions_are_watched_now_and_then(workspace, monkeypatch):
    asked = []
    monkeypatch.setattr("app.triage_watch.queue_triage", lambda *_, **__: asked.append(1))
    for every, looks in ((1000.0, 1), (0.0, 3)):
        watch = TriageWatch(workspace, every)
        asked.clear()
        for _ in range(3):
            watch.decided()
        assert len(asked) == looks


def test_the_first_version_waits_for_enough_of_both(workspace):
    assert queue_triage(workspace) is None
    material = make_candidates(workspace, 60)
    user = user_id_of(workspace)
    say(workspace, dict.fromkeys(material.ids[:40], True), user)
    with workspace.read() as session:
        missing = retrain_state(session, material.recipe_id).missing
    assert "so far there are 20 and 0" in missing or "so far there are 40 and 0" in missing
    with pytest.raises(TooFewVerdicts, match="40 and 0"):
        find_handler("triage")(workspace, {}, NoProgress())
    say(workspace, dict.fromkeys(material.ids[40:], False), user)
    assert queue_triage(workspace) is not None
    result = find_handler("triage")(workspace, {}, NoProgress())
    assert result["is_new"] and result["trained_on"] == 60
    assert find_handler("triage")(workspace, {}, NoProgress())["is_new"] is False


# ---- confirming ----

LOOSE = {"max_error": 0.1, "max_reject_error": 0.3}


def auto_verdicts(workspace) -> dict[int, Verdict]:
    with workspace.read() as session:
        return dict(session.execute(select(AutoVerdict.candidate_id, AutoVerdict.verdict)).all())


def counted(workspace, verdict) -> set[int]:
    with workspace.read() as session:
        return set(session.scalars(select(Candidate.id).where(auto_where(verdict))))


def test_bands_are_proposed_and_only_a_person_applies_them(trained):
    workspace, material, _user, model = trained
    with workspace.read() as session:
        proposal = propose_bands(session, model.id, **LOOSE)
        strict = propose_bands(session, model.id, 0.001)
    assert strict.bands == () and len(strict.notes) == 2 and "2995 judged" in strict.notes[0]
    assert proposal.open == 60 and proposal.accept.upper <= 0.1 and proposal.reject.upper <= 0.3
    assert proposal.left == 60 - proposal.accept.candidates - proposal.reject.candidates < 30
    assert auto_verdicts(workspace) == {}

    band = confirm_bands(workspace, model.id, confirmed_by="ann", **LOOSE)
    assert (band.accept_above, band.reject_below) == (proposal.accept.threshold, proposal.reject.threshold)
    assert band.estimate["accept"]["upper"] == proposal.accept.upper and band.confirmed_by == "ann"
    given, p = auto_verdicts(workspace), {key: row.p_accept for key, row in stored(workspace).items()}
    expected = {key: Verdict.ACCEPT for key in material.ids[240:] if p[key] >= band.accept_above}
    expected |= {key: Verdict.REJECT for key in material.ids[240:] if p[key] < band.reject_below}
    assert given == expected and len(given) == proposal.accept.candidates + proposal.reject.candidates
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Decision)) == 240, "nobody's verdict is made up"


def in_queue(workspace, user, state=QueueState.UNREVIEWED, order=Order.ID) -> list[int]:
    with workspace.read() as session:
        return [item.id for item in next_items(session, QueueFilter(state), user, limit=200, order=order).items]


def test_what_the_model_decided_leaves_the_queue(trained):
    workspace, material, user, model = trained
    everything = in_queue(workspace, user)
    assert everything == material.ids[240:]
    band = confirm_bands(workspace, model.id, confirmed_by="ann", reject=False, **LOOSE)
    automatic = sorted(auto_verdicts(workspace))
    left = sorted(set(everything) - set(automatic))
    assert left and automatic
    assert in_queue(workspace, user) == left and in_queue(workspace, user, QueueState.AUTO) == automatic
    assert in_queue(workspace, user, QueueState.NOT_ASKED) == []
    page = take_page(workspace, QueueFilter(), user, "tab", limit=100).page
    assert [item.id for item in page.items] == left, "nobody is given one to hold"
    with workspace.read() as session:
        found = progress(session, QueueFilter(), user)
    assert found.counts[QueueState.AUTO] == len(automatic) and found.counts[QueueState.UNREVIEWED] == len(left)
    assert found.together.left == len(left) and found.together.wanted == 240 + len(left)

    # A person's word takes it from the model, a gold item is asked of everybody.
    say(workspace, {automatic[0]: True}, user)
    with workspace.write() as session:
        session.add(GoldItem(candidate_id=automatic[1], verdict=Verdict.ACCEPT))
    assert in_queue(workspace, user, QueueState.AUTO) == automatic[2:]
    assert in_queue(workspace, user) == sorted([*left, automatic[1]])
    revoke_band(workspace, band.id)
    assert in_queue(workspace, user) == sorted({*everything} - {automatic[0]})
    assert in_queue(workspace, user, QueueState.AUTO) == []


def test_the_queue_brings_the_uncertain_first(trained):
    workspace, _, user, _ = trained
    found = stored(workspace)
    ids = in_queue(workspace, user, order=Order.UNCERTAIN)
    assert ids == sorted(ids, key=lambda key: (found[key].uncertainty, key), reverse=True)
    nearest = max(set(ids), key=lambda key: uncertainty(np.float64(found[key].p_accept)))
    assert ids[0] == nearest, "the one nearest to one half"


def test_a_persons_verdict_goes_before_the_models(trained):
    workspace, material, user, model = trained
    with workspace.write() as session:
        session.add(GoldItem(candidate_id=material.ids[299], verdict=Verdict.REJECT))
        session.add(adjudication(material.ids[298], user, Verdict.ACCEPT, 1))
        source = session.get(SourceImage, session.get(Candidate, material.ids[297]).source_id)
        session.add(new_candidate(source, material.recipe_id, 998, version=2, parent_id=material.ids[297]))
    say(workspace, {material.ids[296]: None}, user)
    confirm_bands(workspace, model.id, confirmed_by="ann", **LOOSE)
    assert not set(material.ids[296:]) & set(auto_verdicts(workspace)), "gold, adjudicated, replaced, skipped"
    accepted = sorted(counted(workspace, Verdict.ACCEPT))
    say(workspace, {accepted[0]: False, accepted[1]: None}, user)
    with workspace.write() as session:
        session.add(adjudication(accepted[2], user, Verdict.REJECT, 2))
    assert set(accepted) - counted(workspace, Verdict.ACCEPT) == {accepted[0], accepted[2]}, "a skip says nothing"
    undo_last(workspace, user)
    undo_last(workspace, user)
    assert set(accepted) - counted(workspace, Verdict.ACCEPT) == {accepted[2]}


def test_bands_are_revoked_and_one_stands_at_a_time(trained):
    workspace, material, _user, model = trained
    first = confirm_bands(workspace, model.id, confirmed_by="ann", **LOOSE)
    both = auto_verdicts(workspace)
    second = confirm_bands(workspace, model.id, confirmed_by="bob", reject=False, **LOOSE)
    assert second.reject_below is None and set(auto_verdicts(workspace).values()) == {Verdict.ACCEPT}
    with workspace.read() as session:
        assert active_band(session, material.recipe_id).id == second.id
        assert [(band.id, band.revoked_at is None) for band in confirmed_bands(session, material.recipe_id)] == [
            (second.id, True),
            (first.id, False),
        ]
        assert sum(auto_counts(session, material.recipe_id).values()) < len(both)
    revoke_band(workspace, second.id)
    assert auto_verdicts(workspace) == {} and counted(workspace, Verdict.ACCEPT) == set()
    for wrong in (second.id, 99):
        with pytest.raises(BandError, match="stands"):
            revoke_band(workspace, wrong)


def test_bands_that_cannot_be_confirmed(trained):
    workspace, material, user, model = trained
    with pytest.raises(BandError, match="Choose"):
        confirm_bands(workspace, model.id, confirmed_by="ann", accept=False, reject=False, **LOOSE)
    with pytest.raises(BandError, match="No band to accept"):
        confirm_bands(workspace, model.id, confirmed_by="ann", max_error=0.001)
    with pytest.raises(BandError, match="above 0 and below"):
        confirm_bands(workspace, model.id, confirmed_by="ann", max_error=0.5)
    with pytest.raises(BandError, match="no triage model 99"):
        confirm_bands(workspace, 99, confirmed_by="ann")
    say(workspace, {material.ids[250]: True}, user)
    newer = train(workspace, material.recipe_id).model
    with pytest.raises(BandError, match=f"replaced by model {newer.id}"):
        confirm_bands(workspace, model.id, confirmed_by="ann", **LOOSE)


def test_second_looks_at_slips(trained):
    workspace, material, user, model = trained
    p = {key: row.p_accept for key, row in stored(workspace).items()}
    hard = [
        key for key, good in list(zip(material.ids, material.good, strict=True))[:240] if abs(good - p[key]) >= 0.85
    ]
    with workspace.read() as session:
        assert sorted(surprising_verdicts(session, model)) == hard
    say(workspace, {key: material.good[material.ids.index(key)] for key in hard}, user)
    with workspace.read() as session:
        assert surprising_verdicts(session, model) == [], "judged again, and meant"
    other = user_id_of(workspace, "other")
    sure = sorted(material.ids[240:], key=p.__getitem__)
    say(workspace, {sure[0]: True, sure[-1]: False, sure[-2]: True}, other)
    with workspace.read() as session:
        assert sorted(surprising_verdicts(session, model)) == sorted([sure[0], sure[-1]])
        assert surprising_verdicts(session, model, user) == []
        assert len(surprising_verdicts(session, model, other, limit=1)) == 1
    say(workspace, {sure[0]: True}, other)
    with workspace.read() as session:
        assert surprising_verdicts(session, model) == [sure[-1]]


# ---- routes, commands, benchmark ----


def client_of(workspace, user_id):
    app = FastAPI()
    app.include_router(triage_router(workspace, lambda: user_id))
    return TestClient(app)


def test_the_whole_way_by_routes(trained):
    workspace, _material, _user, model = trained
    client = client_of(workspace, user_id_of(workspace, "local"))
    status = client.get("/api/triage").json()
    assert status["model"]["id"] == model.id and status["band"] is None and not status["is_due"]
    assert sum(part["open"] for part in status["histogram"]) == 60
    assert sum(part["looked_at"] for part in status["histogram"]) == 240
    job = client.post("/api/triage/train").json()
    assert (
        client.post("/api/triage/train").json() == job and client.get("/api/triage").json()["job_id"] == job["job_id"]
    )
    proposal = client.get("/api/triage/bands", params=LOOSE).json()
    assert proposal["accept"]["upper"] <= 0.1 and proposal["open"] == 60
    body = {"model_id": proposal["model_id"], "accept": True, "reject": True, **LOOSE}
    band = client.post("/api/triage/bands", json=body)
    assert band.status_code == 201 and band.json()["confirmed_by"] == "local"
    status = client.get("/api/triage").json()
    assert status["band"]["id"] == band.json()["id"]
    assert status["auto_accepts"] == proposal["accept"]["candidates"]
    revoked = client.post(f"/api/triage/bands/{band.json()['id']}/revoke").json()
    assert revoked["revoked_at"] and client.get("/api/triage").json()["auto_accepts"] == 0
    assert client.post(f"/api/triage/bands/{band.json()['id']}/revoke").status_code == 409
    assert len(client.get("/api/triage/bands/confirmed").json()) == 1
    assert [row["id"] for row in client.get("/api/triage/models").json()] == [model.id]
    wrong = client.post("/api/triage/bands", json=body | {"model_id": 99})
    assert wrong.status_code == 409 and "no triage model 99" in wrong.json()["error"]
    assert client.get("/api/triage/bands", params={"max_error": 0.7}).status_code == 422


def test_without_a_model_the_routes_say_what_is_missing(workspace):
    user = user_id_of(workspace, "local")
    assert "generate" in client_of(workspace, user).get("/api/triage").json()["error"]
    make_candidates(workspace, 3)
    client = client_of(workspace, user)
    status = client.get("/api/triage").json()
    assert status["model"] is None and "at least 20 accepted" in status["missing"] and status["histogram"] == []
    assert client.get("/api/triage/bands").status_code == 409
    assert client.get("/api/triage/second-look").json() == {"items": []}


def test_an_annotator_sees_only_their_own_surprises(trained):
    workspace, material, user, model = trained
    sure = max(material.ids[240:], key=lambda key: stored(workspace)[key].p_accept)
    say(workspace, {sure: False}, user)
    with workspace.write() as session:
        account = User(name="judge", role=Role.ADJUDICATOR, password_hash="x")
        session.add(account)
    own, judge = client_of(workspace, user), client_of(workspace, account.id)
    assert next(item["id"] for item in own.get("/api/triage/second-look").json()["items"]) == sure
    everyone = {"everyone": True}
    assert own.get("/api/triage/second-look", params=everyone).status_code == 403
    assert judge.get("/api/triage/second-look").json()["items"] == []
    assert next(item["id"] for item in judge.get("/api/triage/second-look", params=everyone).json()["items"]) == sure
    assert own.get("/api/triage").status_code == 403
    body = {"model_id": model.id, "accept": True, "reject": True, **LOOSE}
    assert judge.post("/api/triage/bands", json=body).status_code == 403, "confirming is for admins"


def test_by_commands(trained):
    workspace, _material, _user, model = trained
    folder = ["-w", str(workspace.root)]

    def run(*arguments):
        return CliRunner().invoke(command_line, list(arguments))

    shown = run("triage", *folder, "--show")
    assert shown.exit_code == 0 and f"Model {model.id}" in shown.output and "AUROC" in shown.output
    assert "Nothing to do" in run("triage", *folder).output
    assert "differs by at most 0." in run("triage", *folder, "--check").output
    loose = ("--max-error", "0.1", "--max-reject-error", "0.3")
    proposed = run("triage", "bands", *folder, *loose)
    assert "--confirm" in proposed.output and auto_verdicts(workspace) == {}
    confirmed = run("triage", "bands", *folder, *loose, "--confirm", "--no-reject")
    assert "Confirmed as band 1" in confirmed.output
    assert set(auto_verdicts(workspace).values()) == {Verdict.ACCEPT}
    assert "revoked" in run("triage", "bands", *folder, "--revoke").output and auto_verdicts(workspace) == {}


def test_a_job_is_run_by_the_worker_like_any_other(trained):
    workspace, material, user, _model = trained
    say(workspace, dict.fromkeys(material.ids[240:295], True), user)
    job_id = queue_triage(workspace)
    with workspace.write() as session:
        job = jobs.claim(session, "w", job_id=job_id)
    from app.worker import JobProgress, run_job

    assert run_job(workspace, job, "w", JobProgress(workspace, job.id, "w")) is JobState.DONE
    with workspace.read() as session:
        assert session.get(Job, job_id).result["trained_on"] == 295


def test_a_replay_saves_decisions_at_the_same_purity():
    labelled = make_labelled_set(2000, seed=0, signal=1.5)
    outcome = Replay(labelled, 0, at_random=False).run()
    assert FIRST < outcome.decisions < 0.8 * 2000 and outcome.automatic > 500
    assert outcome.accept_set >= 0.985 and outcome.purity >= outcome.full_purity - 0.005


def test_made_up_sets_are_as_described():
    labelled = make_labelled_set(10_000, seed=1)
    assert 0.72 < labelled.truth.mean() < 0.79
    assert (labelled.truth != labelled.verdicts).mean() == pytest.approx(0.02, abs=0.004)
    again = make_labelled_set(10_000, seed=1)
    assert np.array_equal(labelled.table.values, again.table.values)
    assert not np.array_equal(labelled.table.values, make_labelled_set(10_000, seed=2).table.values)
    blank = make_labelled_set(10_000, seed=1, signal=0)
    good = blank.truth == 1
    assert abs(blank.table.values[good].mean(axis=0) - blank.table.values[~good].mean(axis=0)).max() < 0.1


def test_nothing_heavy_is_loaded_before_it_is_needed():
    names = "agreeing bands confirmed features labels learners model order quality shapes surprising training"
    modules = ", ".join(f"review.triage.{name}" for name in names.split())
    code = (
        f"import sys, {modules}, review.audit_report, review.duplicates, app.triage_routes, app.commands.review\n"
        "sys.exit(bool({'sklearn', 'scipy', 'torch', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
