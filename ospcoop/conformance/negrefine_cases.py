"""negrefine: grouped NegLabel, multi-matching, label mining, word cleaning, pairs and metrics."""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F

from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.preprocess import normalise, to_tensor
from ospcoop.conformance.vectors import Vectors
from ospcoop.detectors.base import ImageFeatures, Resources
from ospcoop.detectors.labels import label_features, mean_over_templates
from ospcoop.detectors.mining import candidate_labels, clean_words, far_labels, top_positives
from ospcoop.detectors.neglabel import group_permutation, label_groups, neglabel_score
from ospcoop.detectors.negrefine import NegRefine, multi_matching_score
from ospcoop.metrics import aupr_in, aupr_out, auroc, fpr95_id_pos

UNIT = 1e-5
METRIC_CASES = ("metric.normal", "metric.ties", "metric.tiny")
QUANTILES = ("1", "0.9", "0.5")


def check_negrefine(vectors: Vectors, model: OpenClipModel) -> None:
    """Everything of negrefine.npz."""
    _check_groups(vectors)
    with vectors.case("e2e"):
        _check_end_to_end(vectors, model)
    with vectors.case("mine.candidates"):
        _check_candidates(vectors)
    _check_mining(vectors)
    with vectors.case("clean"):
        vectors.check_texts("clean.out_sorted", clean_words(vectors.strings("clean.in"), as_published=True))
    with vectors.case("pairs"):
        features = [torch.from_numpy(vectors.input(f"pairs.{side}_features")) for side in ("neg", "pos")]
        vectors.check("pairs.top_pos", top_positives(*features))
    for case in vectors.cases(".values", METRIC_CASES):
        with vectors.case(case):
            scores = -vectors.input(f"{case}.in"), -vectors.input(f"{case}.out")
            values = [metric(*scores) for metric in (auroc, aupr_in, aupr_out, fpr95_id_pos)]
            vectors.check(f"{case}.values", values, abs=1e-9)


def _matching(vectors: Vectors, pattern: str) -> list[re.Match[str]]:
    """The arrays whose whole name fits; a failed row when there is none."""
    found = [match for name in vectors.names if (match := re.fullmatch(pattern, name))]
    if not found:
        with vectors.case(pattern):
            raise LookupError("no array has such a name")
    return found


def _check_groups(vectors: Vectors) -> None:
    for match in _matching(vectors, r"group\.perm_(\d+)"):
        with vectors.case(match[0]):
            vectors.check(match[0], group_permutation(int(match[1])))
    for match in _matching(vectors, r"group\.score_(\d+)(?:_K(\d+))?"):
        with vectors.case(match[0]):
            images, positives, negatives = (
                torch.from_numpy(vectors.input(f"group.{side}_features")) for side in ("image", "pos", "neg")
            )
            if match[2] is not None:
                negatives = negatives[: int(match[2])]
            groups = label_groups(len(negatives), int(match[1]), as_published=True)
            vectors.check(match[0], neglabel_score(images, positives, negatives, groups), abs=UNIT)


def _check_end_to_end(vectors: Vectors, model: OpenClipModel) -> None:
    pixels = normalise(torch.stack([to_tensor(image) for image in vectors.input("e2e.images_u8")]))
    images = F.normalize(model.encode_image(pixels)[0], dim=-1)
    vectors.check("e2e.image_features", images, abs=UNIT)

    templates = vectors.strings("e2e.noun_templates")
    names = vectors.strings("e2e.pos_labels")
    nouns, adjectives = vectors.strings("e2e.neg_labels_noun"), vectors.strings("e2e.neg_labels_adj")
    positives = label_features(model.encode_text, names, templates)
    negatives = torch.cat(
        [
            label_features(model.encode_text, nouns, templates),
            label_features(model.encode_text, adjectives, vectors.strings("e2e.adj_templates")),
        ]
    )
    vectors.check("e2e.pos_features", positives, abs=UNIT)
    vectors.check("e2e.neg_features", negatives, abs=UNIT)

    groups = int(vectors.input("e2e.ngroup"))
    resources = Resources(
        positives, model.logit_scale, tuple(names), negatives, tuple(nouns + adjectives), model.encode_text
    )
    detector = NegRefine(
        resources,
        groups=groups,
        k_pos=int(vectors.input("e2e.k_pos")),
        k_neg=int(vectors.input("e2e.k_neg")),
        templates=templates,
        as_published=True,
    )
    texts, nearest = detector.texts_of(images)
    vectors.check_texts("e2e.multi_texts", texts)
    pairs = detector.pair_features(texts)
    vectors.check("e2e.multi_features", pairs, abs=UNIT)
    plain = neglabel_score(images, positives, negatives, label_groups(len(negatives), groups, as_published=True))
    vectors.check("e2e.neg_label_score", plain, abs=UNIT)
    vectors.check("e2e.multi_matching_score", multi_matching_score(images, pairs, negatives[nearest]), abs=1e-4)
    # The published score is higher for ID images, the detector's for OOD images.
    vectors.check("e2e.final_score", -detector.score(ImageFeatures(images)), abs=2e-4)


def _check_candidates(vectors: Vectors) -> None:
    files = {match[1]: vectors.strings(match[0]) for match in _matching(vectors, r"mine\.file\.(.+)")}
    found = candidate_labels(files, vectors.strings("mine.class_names"), as_published=True)
    vectors.check_texts("mine.nouns", found.nouns)
    vectors.check_texts("mine.adjs", found.adjectives)


def _check_mining(vectors: Vectors) -> None:
    quantiles = [match[1] for match in _matching(vectors, r"mine\.selected_nouns_q([\d.]+)")]
    for quantile in dict.fromkeys([*quantiles, *QUANTILES]):
        for kind, features in (("nouns", "noun"), ("adjs", "adj")):
            name = f"mine.selected_{kind}_q{quantile}"
            with vectors.case(name):
                # [template, class, D] for the classes, [label, template, D] for the candidates.
                classes = torch.from_numpy(vectors.input("mine.pos_prompt_features")).transpose(0, 1)
                candidates = torch.from_numpy(vectors.input(f"mine.{features}_prompt_features"))
                chosen = far_labels(
                    mean_over_templates(candidates), mean_over_templates(classes), quantile=float(quantile)
                )
                vectors.check_texts(name, np.array(vectors.strings(f"mine.{kind}"))[chosen.numpy()])
