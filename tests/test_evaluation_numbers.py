"""Intervals against the plain bootstrap, pairs worked out by hand, and tables to the letter."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospcoop.evaluation.bootstrap import bootstrap_intervals, share_interval
from ospcoop.evaluation.formats import as_csv, as_latex, as_markdown, tables
from ospcoop.evaluation.paired import Paired, analyse_pairs
from ospcoop.evaluation.tables import (
    COLUMNS,
    ResultRow,
    best_of,
    classic_averages,
    mark_best,
    over_seeds,
    sentences,
)
from ospcoop.metrics import METRICS, Interval, bootstrap_interval

# Few distinct values, so that ties are the rule.
some_scores = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(some_scores, some_scores, st.integers(0, 3))
def test_the_fast_bootstrap_is_the_plain_one(inside, outside, seed):
    found = bootstrap_intervals(inside, outside, resamples=15, seed=seed)
    assert set(found) == set(METRICS)
    for name, metric in METRICS.items():
        plain = bootstrap_interval(metric, inside, outside, resamples=15, seed=seed)
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx(
            (plain.value, plain.low, plain.high), abs=1e-12
        )


@pytest.mark.parametrize(("many", "others"), [(400, 90), (30, 700)])
def test_the_fast_bootstrap_is_the_plain_one_on_many_distinct_scores(many, others):
    rng = np.random.default_rng(many)
    inside, outside = rng.normal(0, 1, many), rng.normal(0.5, 1, others)
    found = bootstrap_intervals(inside, outside, resamples=40, level=0.8, seed=7)
    for name, metric in METRICS.items():
        plain = bootstrap_interval(metric, inside, outside, resamples=40, level=0.8, seed=7)
        assert (found[name].low, found[name].high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_a_bootstrap_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="level between 0 and 1"):
        bootstrap_intervals([0], [1], level=1)
    with pytest.raises(ValueError, match="no OOD score"):
        bootstrap_intervals([0], [])
    with pytest.raises(ValueError, match="no image"):
        share_interval(0, 0)


def test_a_shares_interval_is_the_binomials():
    found = share_interval(80, 100, resamples=20000, seed=1)
    assert found.value == 0.8
    # The exact quantiles of Binomial(100, 0.8) are 72 and 87.
    assert (found.low, found.high) == (0.72, 0.87)
    assert share_interval(0, 5) == Interval(0, 0, 0) and share_interval(5, 5) == Interval(1, 1, 1)


def test_pairs_by_hand():
    background = [-0.5, -0.2, -0.9, -0.4]
    photo = [-0.6, -0.6, -0.5, -0.4]
    found = analyse_pairs(background, photo, [True, False, False, False], [7, 8, 9, 9], resamples=300)
    # Rises: 0.1, 0.4, -0.4, 0: one of four is lower, their mean 0.025, their median 0.05.
    assert (found.pairs, found.sources) == (4, 3)
    assert found.lower.value == 0.25 and found.kept_class.value == 0.25
    assert found.mean.value == pytest.approx(0.025) and found.median.value == pytest.approx(0.05)
    assert Paired.from_dict(found.as_dict()) == found


def test_pairs_are_drawn_by_source():
    """Two sources of which one has three candidates: a draw holds 0, 3 or 6 of them and never 1 or 2."""
    rise = np.array([0.0, 1.0, 1.0, 1.0])
    found = analyse_pairs(rise, np.zeros(4), np.zeros(4), [1, 2, 2, 2], resamples=2000, level=0.98)
    # By source the mean is 0 (a quarter of draws), 3/4 (half) or 1 (a quarter); by pair it would rarely be 0.
    assert (found.mean.low, found.mean.high) == (0.0, 1.0)
    by_pair = analyse_pairs(rise, np.zeros(4), np.zeros(4), [1, 2, 3, 4], resamples=2000, level=0.98)
    assert by_pair.mean.low > 0


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="no pair"):
        analyse_pairs([], [], [], [])


def interval(value):
    return Interval(value, value - 0.01, value + 0.01)


def a_row(run, auroc, **changes) -> ResultRow:
    metrics = {
        name: interval(auroc if name not in ("fpr95_id_pos", "fpr95_ood_pos") else 1 - auroc) for name in COLUMNS
    }
    zero_shot = run == "zero-shot"
    row = ResultRow(
        evaluation=1,
        run=run,
        run_id=None if zero_shot else len(run),
        method="zero-shot" if zero_shot else "OSPCoOp",
        encoder="clip",
        grade="paper",
        seed=None if zero_shot else 1,
        epoch=None if zero_shot else 50,
        selection="" if zero_shot else "last epoch",
        detector="MCM",
        id_set="val",
        ood_set="SUN",
        group="classic",
        id_images=50000,
        ood_images=10000,
        id_sha256="a" * 64,
        ood_sha256="b" * 64,
        classes=1000,
        trained_classes=None if zero_shot else 1000,
        metrics=metrics,
        paired=None,
        scores="",
        series=run,
        data_known=True,
    )
    return replace(row, **changes)


ROWS = mark_best([a_row("zero-shot", 0.9), a_row("r_1", 0.95)])


def test_markdown_to_the_letter():
    assert as_markdown(ROWS) == (
        "**clip, ID set val (50000 images, 1000 classes), in per cent**\n\n"
        "| OOD set | detector | prompts | selection | AUROC | AUPR in | AUPR out | FPR95 (ID positive) | "
        "FPR95 (OOD positive) | ID accuracy |\n"
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| SUN (10000) | MCM | zero-shot |  | 90.00 | 90.00 | 90.00 | 10.00 | 10.00 | 90.00 |\n"
        "| SUN (10000) | MCM | r_1 | last epoch | "
        "**95.00** | **95.00** | **95.00** | **5.00** | **5.00** | **95.00** |\n"
    )


def test_latex_to_the_letter():
    lines = as_latex(ROWS).splitlines()
    assert lines[1] == r"\begin{tabular}{llllrrrrrr}"
    assert lines[6].startswith(r"SUN (10000) & MCM & r\_1 & last epoch & \textbf{95.00} & ")
    assert lines[5] == r"SUN (10000) & MCM & zero-shot &  & 90.00 & 90.00 & 90.00 & 10.00 & 10.00 & 90.00 \\"
    assert lines[7:] == [r"\bottomrule", r"\end{tabular}"]


def test_csv_holds_fractions_with_their_intervals():
    pairs = analyse_pairs([0.25, 0.5], [0.5, 0.5], [True, True], [1, 2], resamples=5)
    bg = a_row("r_1", 0.8, ood_set="bg-v1", group="bg", paired=pairs)
    lines = list(csv.DictReader(io.StringIO(as_csv([*ROWS, bg]))))
    assert lines[0]["prompts"] == "zero-shot" and lines[0]["seed"] == "" and lines[0]["best"] == ""
    assert lines[1]["best"].split() == list(COLUMNS)
    assert [lines[1][f"fpr95_id_pos{end}"] for end in ("", "_low", "_high")] == ["0.050000", "0.040000", "0.060000"]
    assert (lines[0]["pairs"], lines[2]["pairs"], lines[2]["lower"], lines[2]["mean"]) == (
        "",
        "2",
        "0.500000",
        "-0.125000",
    )
    assert lines[2]["ood_sha256"] == "b" * 64


def test_the_best_is_as_printed_and_none_is_best_alone():
    values = [dict.fromkeys(COLUMNS, value) for value in (0.5, 0.50004, 0.4)]
    high = {"auroc", "aupr_in", "aupr_out", "id_accuracy"}
    assert best_of(values) == [high, high, {"fpr95_id_pos", "fpr95_ood_pos"}]
    assert best_of(values[:1]) == [frozenset()]
    other = a_row("r_1", 0.95, ood_set="Places")
    assert [bool(row.best) for row in mark_best([ROWS[0], other])] == [False, False], "other sets do not compete"


def four(run, values, **changes):
    names = ("iNaturalist", "SUN", "Places", "dtd")
    return [a_row(run, value, ood_set=name, **changes) for name, value in zip(names, values, strict=True)]


def test_the_average_is_of_the_classic_four_alone():
    bg = a_row("r_1", 0.1, ood_set="bg-v1", group="bg")
    rows = [*four("r_1", (0.9, 0.8, 0.7, 0.6)), bg, *four("zero-shot", (0.9, 0.9, 0.9, 0.9))]
    (one, two) = classic_averages(rows)
    assert one.metrics["auroc"] == pytest.approx(0.75) and one.metrics["fpr95_id_pos"] == pytest.approx(0.25)
    assert not one.best and two.best == set(COLUMNS)
    assert "| average of the classic four | MCM | r_1 | last epoch | 75.00 |" in as_markdown(rows)
    assert classic_averages(rows[1:5]) == []


def test_seeds_have_a_mean_and_a_sample_deviation():
    rows = [a_row(f"r_{seed}", value, seed=seed, series="s") for seed, value in ((1, 0.9), (2, 0.92), (3, 0.97))]
    (found,) = over_seeds([*rows, a_row("alone", 0.5, series="t"), a_row("zero-shot", 0.5, series="s")])
    assert found.seeds == (1, 2, 3) and found.mean["auroc"] == pytest.approx(0.93)
    assert found.spread["auroc"] == pytest.approx(0.0360555, abs=1e-6)
    assert "| SUN | MCM | OSPCoOp | 1, 2, 3 | 93.00 ± 3.61 |" in as_markdown(rows)
    assert r"93.00 $\pm$ 3.61" in as_latex(rows)
    assert over_seeds([rows[0], replace(rows[1], ood_sha256="c" * 64)]) == [], "other images"


def test_the_table_says_what_must_be_said():
    assert sentences(ROWS) == []
    shown = [
        a_row("zero-shot", 0.9, grade="embedded", id_images=10, ood_images=9),
        a_row("p", 0.9, selection="as published: chosen on the test sets", id_images=10, ood_images=9),
        a_row("few", 0.9, trained_classes=3, classes=10, id_images=10, ood_images=9),
        a_row("came", 0.9, data_known=False, id_images=10, ood_images=9),
    ]
    said = sentences(shown)
    assert said == [
        "Demo encoder, not CLIP: these numbers say nothing of the paper's.",
        "These are demo numbers: twenty photos at most on either side, far too few to compare methods by.",
        "Chosen on the test sets, as published, and so too good: p.",
        "few was trained on 3 of the 10 classes evaluated.",
        "What came was trained on is not known here: it was imported.",
    ]
    for text in (as_markdown(shown), as_latex(shown)):
        assert all(sentence in text for sentence in said)
    assert sentences([a_row("r_1", 0.9, ood_images=60)]) == [
        "The smallest set has 60 images: see the intervals before comparing methods by it."
    ]


def test_pairs_have_a_table_of_their_own_and_a_bar_breaks_no_markdown():
    pairs = analyse_pairs([0.25, 0.5], [0.5, 0.5], [True, True], [1, 2], resamples=5)
    rows = [a_row("a|b", 0.8, ood_set="bg-v1", group="bg", paired=pairs)]
    assert [made.title.rpartition(": ")[2] for made in tables(rows)][1] == "each background against its own photo"
    assert "| bg-v1 | MCM | a\\|b | 2 | 50.00 [" in as_markdown(rows)
    assert "90.00 [89.00, 91.00]" in tables(ROWS, intervals=True)[0].lines[0][4].text
