"""Figures' numbers against answers worked out by hand, and what holds for all scores."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ospcoop.figures.scores import reliability, roc_curve, score_histogram
from ospcoop.figures.shortcut_map import patch_evidence, shortcut_map
from ospcoop.figures.svg import Axes, Series, chart, heat_colour, nice_ticks, shortcut_figure
from ospcoop.metrics import auroc

tied_scores = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


def test_a_histogram_by_hand():
    found = score_histogram([0, 0.1, 1.0, 3.9], [4.0, 2.0], bins=4)
    assert found.edges.tolist() == [0, 1, 2, 3, 4]
    assert found.id.tolist() == [0.5, 0.25, 0, 0.25], "a bin holds its lower edge"
    assert found.ood.tolist() == [0, 0, 0.5, 0.5], "the last bin holds its upper edge too"


def test_a_roc_curve_by_hand():
    found = roc_curve([1, 2, 3, 4], [3, 5])
    # 5 finds one of two; 4 costs one of four; 3 finds the other and costs one: a slanted line; the rest costs.
    assert list(zip(found.fpr, found.tpr, strict=True)) == [(0, 0), (0, 0.5), (0.25, 0.5), (0.5, 1), (1, 1)]
    assert found.area == 0.8125 == auroc([1, 2, 3, 4], [3, 5])
    alike = roc_curve([1, 1], [1, 1, 1])
    assert (alike.fpr.tolist(), alike.tpr.tolist()) == ([0, 1], [0, 1])


def test_as_many_bins_as_images_bear():
    assert len(score_histogram(range(5), range(1000)).id) == 10
    assert len(score_histogram(range(1000), range(2000)).id) == 20
    assert len(score_histogram(np.zeros(50_000), np.ones(50_000)).id) == 40


@given(tied_scores, tied_scores)
def test_the_area_is_the_auroc_and_the_curve_rises(inside, outside):
    found = roc_curve(inside, outside, points=None)
    assert found.area == pytest.approx(auroc(inside, outside), abs=1e-12)
    assert (np.diff(found.fpr) >= 0).all() and (np.diff(found.tpr) >= 0).all()
    assert (found.fpr[[0, -1]].tolist(), found.tpr[[0, -1]].tolist()) == ([0, 1], [0, 1])


def test_a_thinned_curve_ends_where_it_should_and_is_close():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=5000), rng.normal(1, 1, 5000)
    full, thin = roc_curve(inside, outside, points=None), roc_curve(inside, outside, points=200)
    assert len(full.fpr) > 1000 and 150 <= len(thin.fpr) <= 200
    assert (thin.fpr[[0, -1]].tolist(), thin.tpr[[0, -1]].tolist()) == ([0, 1], [0, 1])
    assert thin.area == pytest.approx(full.area, abs=1e-3)
    assert set(zip(thin.fpr, thin.tpr, strict=True)) <= set(zip(full.fpr, full.tpr, strict=True))


def test_reliability_by_hand():
    found = reliability([0.1, 0.2, 0.5, 0.9, 1.0, 0.0], [0, 1, 1, 1, 0, 0], bins=2)
    low, high = found.bins
    assert (low.lower, low.upper, low.count) == (0, 0.5, 4), "0.5 belongs to the lower of two bins, and so does 0"
    assert low.confidence == pytest.approx(0.2) and low.accuracy == 0.5
    assert (high.count, high.confidence, high.accuracy) == (2, pytest.approx(0.95), 0.5)
    assert found.ece == pytest.approx((4 * 0.3 + 2 * 0.45) / 6)
    only = reliability([0.31, 0.32], [1, 1], bins=10)
    assert [(one.lower, one.upper, one.count) for one in only.bins] == [(0.3, 0.4, 2)]
    assert reliability([1.0, 1.0], [1, 1]).ece == 0


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: score_histogram([], [1]), "no ID score"),
        (lambda: roc_curve([1], [math.nan]), "1 of the 1 OOD scores are not finite"),
        (lambda: reliability([1.1], [1]), "from 0 to 1"),
        (lambda: reliability([0.5, 0.5], [1]), "got 2 and 1"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


# ---- shortcut map ----

TEXT = torch.tensor([[2.0, 0.0], [0.0, 3.0]])  # lengths do not matter
LOCAL = torch.tensor([[1.0, 0.0], [0.0, 5.0], [1.0, 1.0], [1.0, 0.0]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_evidence_by_hand():
    # Cosines with the two classes: (1, 0), (0, 1), (r, r), (1, 0); with scale 2 the first's probability is sigmoid(2).
    found = patch_evidence(LOCAL, TEXT, 2.0, 0)
    assert found.tolist() == pytest.approx([sigmoid(2), sigmoid(-2), 0.5, sigmoid(2)])
    assert (found + patch_evidence(LOCAL, TEXT, 2.0, 1)).tolist() == pytest.approx([1, 1, 1, 1])


def test_a_map_shows_one_class_on_one_scale():
    whole = torch.tensor([0.0, 7.0])
    texts = {"CLIP": TEXT, "flat": torch.ones(2, 2)}
    found = shortcut_map(whole, LOCAL, texts, ("tench", "goldfish"), 2.0, (2, 2), top=3)
    assert found.label == 1, "what the first prompts take the image for"
    first, flat = found.panels
    assert first.evidence == [pytest.approx([sigmoid(-2), sigmoid(2)]), pytest.approx([0.5, sigmoid(-2)])]
    assert first.top == [1, 2, 0], "of equal patches the first"
    assert first.predicted == 1 and first.probability == first.predicted_probability == pytest.approx(sigmoid(2))
    assert flat.top == [0, 1, 2] and flat.probability == pytest.approx(0.5)
    assert found.highest == pytest.approx(sigmoid(2))
    told = found.as_dict()
    assert told["class_name"] == "goldfish" and told["panels"][1]["predicted"] == "tench"
    source = shortcut_map(whole, LOCAL, texts, ("tench", "goldfish"), 2.0, (2, 2), label=0)
    assert source.panels[0].top[:2] == [0, 3] and source.panels[0].probability == pytest.approx(sigmoid(-2))


def test_a_map_of_parts_that_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="3 x 3 patches"):
        shortcut_map(LOCAL[0], LOCAL, {"CLIP": TEXT}, ("a", "b"), 1.0, (3, 3))
    with pytest.raises(ValueError, match="2 prompts for 3 classes"):
        shortcut_map(LOCAL[0], LOCAL, {"CLIP": TEXT}, ("a", "b", "c"), 1.0, (2, 2))


# ---- as SVG ----

SVG = "{http://www.w3.org/2000/svg}"


def test_ticks_are_round_and_hold_the_range():
    assert nice_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert nice_ticks(1, 50, 6) == [0, 10, 20, 30, 40, 50]
    assert nice_ticks(-1.39, 1.7) == [-2, -1, 0, 1, 2]
    assert nice_ticks(3, 3) == [2.5, 3, 3.5]


def test_a_chart_puts_points_where_they_belong():
    axes = Axes("x <&>", "y", (0, 10), (0, 1))
    lines = [Series("rise & fall", [(0, 0), (5, 1), (10, 0.5)]), Series("one", [(5, 0.25)]), Series("none", [])]
    root = ElementTree.fromstring(chart("T <1>", axes, lines, guides=[(0, 0, 10, 1)]))
    left, right, top, floor = 66, 460 - 14, 34, 260 - 42
    (line,) = root.iter(f"{SVG}polyline")
    places = [tuple(float(part) for part in place.split(",")) for place in line.get("points").split()]
    assert places == [(left, floor), ((left + right) / 2, top), (right, (top + floor) / 2)]
    (dot,) = root.iter(f"{SVG}circle")
    assert (float(dot.get("cx")), float(dot.get("cy"))) == ((left + right) / 2, floor - (floor - top) / 4)
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"T <1>", "x <&>", "rise & fall", "one"} <= set(words) and "none" not in words
    with pytest.raises(ValueError, match="nothing to draw"):
        chart("T", axes, [Series("none", [])])


def test_an_area_is_steps_that_the_last_point_closes():
    drawn = chart("T", Axes("x", "y", (0, 2), (0, 1)), [Series("a", [(0, 1), (1, 0.5), (2, 0)], "area")])
    (path,) = ElementTree.fromstring(drawn).iter(f"{SVG}path")
    assert path.get("d") == "M66.00,218.00V34.00H256.00V126.00H446.00V218.00Z"


def test_colours_go_from_the_lowest_to_the_highest():
    assert heat_colour(-1) == heat_colour(0) == "#000004" and heat_colour(1) == heat_colour(2) == "#fcffa4"
    assert heat_colour(0.2) == "#420a68" and heat_colour(0.1) == "#210536"


def test_a_shortcut_figure_outlines_the_top_patches():
    made = shortcut_map(torch.tensor([0.0, 7.0]), LOCAL, {"CLIP": TEXT}, ("tench", "g<old>fish"), 2.0, (2, 2), top=1)
    told = {**made.as_dict(), "candidate": 7, "source_class": "tench"}
    root = ElementTree.fromstring(shortcut_figure(told, b"png"))
    rects = list(root.iter(f"{SVG}rect"))
    (outlined,) = (one for one in rects if one.get("stroke"))
    left, head, side = 12 + 224 + 12, 56, 112
    assert (float(outlined.get("x")), float(outlined.get("y"))) == (left + side, head)
    shown = [one.get("fill") for one in rects if one.get("fill-opacity")]
    assert shown == [heat_colour(value / made.highest) for row in made.panels[0].evidence for value in row]
    assert len(list(root.iter(f"{SVG}image"))) == 2
