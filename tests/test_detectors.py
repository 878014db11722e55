"""The detectors' scores and the label mining against answers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ospcoop.detectors import DETECTORS, ImageFeatures, Resources
from ospcoop.detectors.labels import label_features, mean_over_templates
from ospcoop.detectors.mcm import glmcm_score, mcm_score
from ospcoop.detectors.mining import (
    ADJECTIVE_PHRASES,
    candidate_labels,
    clean_words,
    far_labels,
    read_word_files,
    top_positives,
)
from ospcoop.detectors.neglabel import group_permutation, label_groups, neglabel_score
from ospcoop.detectors.negrefine import multi_matching_score, pair_texts

DIM = 16


def unit(count, seed):
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def encode(texts):
    """A stand-in text tower: each text's own direction, always the same."""
    return torch.cat([unit(1, sum(map(ord, text))) for text in texts]) if texts else torch.empty(0, DIM)


@pytest.fixture
def resources():
    names, negatives = [f"class {n}" for n in range(4)], [f"label {n}" for n in range(12)]
    return Resources(label_features(encode, names), 100.0, tuple(names), encode(negatives), tuple(negatives), encode)


def detector(name, resources, **more):
    return DETECTORS[name](resources, **({"groups": 3} if name in ("neglabel", "csp", "negrefine") else {}), **more)


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_of_a_class_scores_below_one_of_a_negative_label(name, resources):
    whole = torch.stack([resources.class_features[1], resources.negative_features[2]])
    images = ImageFeatures(3 * whole, whole[:, None].expand(-1, 5, -1))
    inside, outside = detector(name, resources).score(images).tolist()
    assert inside < outside
    assert DETECTORS[name].name == name


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_s_score_is_its_own(name, resources):
    images = ImageFeatures(unit(70, 1), unit(70 * 3, 2).view(70, 3, DIM))
    chosen = detector(name, resources)
    together = chosen.score(images)
    alone = torch.cat([chosen.score(ImageFeatures(images.whole[i : i + 1], images.local[i : i + 1])) for i in (0, 69)])
    assert torch.allclose(together[[0, 69]], alone, atol=1e-5)
    assert chosen.score(ImageFeatures(images.whole[:0], images.local[:0])).shape == (0,)


def test_mcm_divides_by_the_constant_hundred():
    logits = torch.tensor([[100.0, 0.0]])
    assert mcm_score(logits).item() == pytest.approx(-math.e / (math.e + 1))
    assert mcm_score(logits, temperature=2.0).item() == pytest.approx(-1 / (1 + math.exp(-0.5)))
    local = torch.tensor([[[0.0, 0.0], [0.0, 200.0]]])
    expected = -1 / (1 + math.exp(-1)) - 0.5 / (1 + math.exp(-2))
    assert glmcm_score(logits, local).item() == pytest.approx(expected)


def test_one_group_is_one_softmax_over_all_labels():
    images, positives, negatives = unit(3, 0), unit(4, 1), unit(6, 2)
    similarity = 100 * images @ torch.cat([positives, negatives]).T
    expected = similarity.softmax(1)[:, :4].sum(1)
    assert torch.allclose(neglabel_score(images, positives, negatives, label_groups(6, 1)), expected, atol=1e-6)


def test_identical_directions_do_not_overflow():
    one = unit(1, 0)
    assert neglabel_score(one, one, one, label_groups(1, 1)).item() == pytest.approx(0.5)
    assert multi_matching_score(one, one[None], one[None]).item() == pytest.approx(0.5)


def test_groups_hold_each_label_once_and_the_published_ones_drop_the_tail():
    for as_published in (False, True):
        groups = label_groups(23, 4, as_published=as_published)
        assert groups.shape == (4, 5) and len(groups.unique()) == 20
        assert torch.equal(groups, label_groups(23, 4, as_published=as_published))
    assert label_groups(23, 4, as_published=True).max() == 19
    assert label_groups(23, 4).max() > 19
    assert torch.equal(label_groups(20, 4), label_groups(20, 4, as_published=True))
    for count, groups in ((3, 4), (3, 0)):
        with pytest.raises(ValueError, match="cannot fill"):
            label_groups(count, groups)


def test_the_permutation_is_torch_s_with_seed_zero_and_moves_no_global_state():
    torch.manual_seed(0)
    expected = torch.randperm(50)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(group_permutation(50), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_negrefine_encodes_each_pair_once(resources):
    calls = []

    def counted(texts):
        calls.extend(texts)
        return encode(texts)

    watched = Resources(**{**resources.__dict__, "encode_text": counted})
    chosen = detector("negrefine", watched, templates=["{}"], k_pos=2, k_neg=3)
    images = ImageFeatures(unit(5, 3))
    first = chosen.score(images)
    seen = len(calls)
    assert seen == len(set(calls)) and all(" and " in text for text in calls)
    assert torch.equal(chosen.score(images), first) and len(calls) == seen
    assert pair_texts(["p", "q"], ["m", "n"]) == ["p and m", "p and n", "q and m", "q and n"]


def test_what_is_missing_is_named(resources):
    bare = Resources(resources.class_features)
    with pytest.raises(ValueError, match="negative labels"):
        DETECTORS["neglabel"](bare)
    with pytest.raises(ValueError, match="negative labels and a text encoder"):
        DETECTORS["negrefine"](bare)
    with pytest.raises(ValueError, match="every class"):
        detector("negrefine", Resources(**{**resources.__dict__, "class_names": ()}))
    with pytest.raises(ValueError, match="every negative label"):
        detector("negrefine", Resources(**{**resources.__dict__, "negative_names": ()}))
    with pytest.raises(ValueError, match="local features"):
        DETECTORS["gl-mcm"](bare).score(ImageFeatures(unit(1, 0)))


def test_the_mean_over_templates_is_taken_before_normalising():
    features = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    assert mean_over_templates(features).tolist() == [pytest.approx([0.6, 0.8])]


def test_candidates(tmp_path):
    words = {
        "adj.all.txt": "red\ntench\nplain\n",
        "noun.animal.txt": "great_white_shark\nTench\ncat\n\ncat\n",
        "noun.plant.txt": "plain\nred\nrose\n",
        "noun.person.txt": "pilot\n",
        "verb.x.txt": "run\n",
    }
    for name, text in words.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = read_word_files(tmp_path)
    found = candidate_labels(files, ["tench"])
    assert found.nouns == ("great white shark", "cat", "plain", "red", "rose")
    assert [phrase.split()[0] for phrase in found.adjectives] == ["red", "plain"]
    assert all(f"{{}} {phrase.split()[1]}" in ADJECTIVE_PHRASES for phrase in found.adjectives)
    assert found == candidate_labels(files, ["tench"]) != candidate_labels(files, ["tench"], seed=1)
    published = candidate_labels(files, ["tench"], as_published=True)
    assert published.nouns == ("great white shark", "Tench", "cat", "rose"), "adjectives shadow nouns; case counts"
    assert [phrase.split()[0] for phrase in published.adjectives] == ["red", "tench", "plain"]


def test_far_labels_come_farthest_first_and_never_hold_a_class():
    classes = torch.eye(3)
    angles = torch.tensor([0.0, 0.5, 1.0, 1.5])
    candidates = torch.stack([angles.cos(), torch.zeros(4), -angles.sin()], dim=1)
    assert far_labels(candidates, classes, share=1.0).tolist() == [3, 2, 1, 0]
    assert far_labels(candidates, classes, quantile=0.0, share=1.0)[-1] == 0, "a class's own label stays last"
    assert far_labels(candidates, classes, share=0.5).tolist() == [3, 2]
    assert far_labels(candidates, classes, share=0.15).tolist() == []


def test_words_are_cleaned_and_not_grown_together():
    words = ["new\nline", "---", "   ", " cup ", "a-b", "ab", "no. 1", "T-shirt!", "T-shirt"]
    assert clean_words(words) == ["T-shirt", "a-b", "cup", "new line"]
    assert clean_words(words, as_published=True) == ["   ", " cup ", "---", "T-shirt", "a-b", "newline", "no "]


def test_top_positives_take_any_length():
    positives = torch.eye(3) * torch.tensor([[9.0], [1.0], [0.1]])
    assert top_positives(torch.tensor([[0.1, 2.0, 1.0]]), positives).tolist() == [[1, 2, 0]]
    assert top_positives(torch.tensor([[0.1, 2.0, 1.0]]), positives, k=1).tolist() == [[1]]
