"""The shared-prefix tower against the plain way: every prompt at all 77 positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ospcoop.clip.openclip import OpenClipModel
from ospcoop.prompt_learner import PromptLearner
from ospcoop.text_tower import Piece, PromptTower, by_length, cut, kept_bytes, prompt_features
from tests.tiny_clip import tiny_state_dict
from tests.training_material import embedded_encoder

# Four lengths; the last one's full stop is one token with its bracket.
NAMES = ["tench", "great_white_shark", "jack-o'-lantern", "cat", "black and gold garden spider", "kite (bird of prey)"]
LAYOUTS = [
    {},
    {"n_ctx": 1},
    {"n_ctx": 40},
    {"class_position": "middle"},
    {"n_ctx": 5, "class_position": "middle"},
    {"class_position": "front"},
    {"class_specific": True},
    {"class_specific": True, "class_position": "middle"},
    {"init_words": "a photo of a"},
    {"init_words": "chiaroscuro photo of", "as_published": True},
]


@pytest.fixture(scope="module")
def model():
    return OpenClipModel(tiny_state_dict())


@pytest.fixture
def double():
    """A tower of its own in float64, where a wrong token cannot hide behind rounding."""
    model = OpenClipModel(tiny_state_dict())
    model.model.double()
    return model


def plain_features(model: OpenClipModel, learner: PromptLearner, dtype: torch.dtype) -> Tensor:
    """Every prompt padded with zeros to the whole context, through open_clip's own transformer."""
    clip = model.model
    short = learner().to(dtype)
    padding = short.new_zeros(len(short), model.context_length - short.shape[1], short.shape[2])
    hidden = torch.cat([short, padding], dim=1) + clip.positional_embedding
    hidden = clip.ln_final(clip.transformer(hidden, attn_mask=clip.attn_mask))
    end = learner.attention_mask.sum(1) - 1
    return hidden[torch.arange(len(hidden)), end] @ clip.text_projection


def features_and_gradient(learner: PromptLearner, features: Tensor) -> tuple[Tensor, Tensor]:
    """The features and the context's gradient of a loss that weighs every one of them differently."""
    learner.context.grad = None
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)
    (features * weights).sum().backward()
    return features.detach(), learner.context.grad


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("memory", [2**32, 1], ids=["kept", "recomputed"])
def test_features_and_gradients_are_those_of_the_plain_way(model, options, memory):
    learner = PromptLearner(model, NAMES, **options)
    tower = PromptTower(model, learner, memory=memory)
    assert tower.recomputes == (memory == 1)
    expected = features_and_gradient(learner, plain_features(model, learner, torch.float32))
    for got, wanted in zip(features_and_gradient(learner, tower()), expected, strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_in_float64_the_two_ways_agree_to_twelve_digits(double, options):
    learner = PromptLearner(double, NAMES, **options).double()
    expected = features_and_gradient(learner, plain_features(double, learner, torch.float64))
    for got, wanted in zip(features_and_gradient(learner, prompt_features(double, learner)), expected, strict=True):
        assert torch.allclose(got, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_near_to_float32_as_the_plain_way_is(model, dtype):
    learner = PromptLearner(model, NAMES)
    exact = plain_features(model, learner, torch.float32).detach()
    with torch.autocast("cpu", dtype=dtype):
        plain, fast = plain_features(model, learner, torch.float32), prompt_features(model, learner)
    away = (plain.float() - exact).norm(), (fast.float() - exact).norm()
    assert 0 < away[1] < 2 * away[0]
    assert away[1] / exact.norm() < 0.02
    fast.float().sum().backward()
    assert learner.context.grad.dtype == torch.float32 and learner.context.grad.abs().sum() > 0


def test_the_prefix_holds_the_start_token_and_the_context_before_the_name(model):
    def shared(**options):
        return PromptTower(model, PromptLearner(model, NAMES, **options)).shared

    assert shared() == 17
    assert shared(class_position="middle") == 9
    assert shared(class_position="front") == 1
    assert shared(class_specific=True) == 1


def test_a_class_weighs_only_its_own_tokens(model):
    """Name, full stop and end token, but for the padding that merges the few long names."""
    learner = PromptLearner(model, NAMES)
    own = [length - 17 for length in learner.lengths]
    assert own == [count + 2 for count in learner.name_lengths[:-1]] + [learner.name_lengths[-1] + 1]
    tower = PromptTower(model, learner)
    assert sum(piece.tokens for piece in tower.pieces) <= sum(own) + 64


def test_every_context_vector_gets_a_gradient(model):
    learner = PromptLearner(model, NAMES)
    prompt_features(model, learner).pow(2).sum().backward()
    assert (learner.context.grad.abs().sum(1) > 0).all()


def test_without_gradients_nothing_is_kept(model):
    learner = PromptLearner(model, NAMES)
    with torch.no_grad():
        features = PromptTower(model, learner, memory=1)()
    assert not features.requires_grad
    assert torch.allclose(features, prompt_features(model, learner), atol=1e-6)


def test_the_memory_estimate_holds_and_is_not_far_off(model):
    learner = PromptLearner(model, NAMES * 8)
    tower = PromptTower(model, learner)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = tower()
    assert features.requires_grad
    estimate = kept_bytes(model, sum(piece.tokens for piece in tower.pieces) + tower.shared)
    assert 0.5 * estimate < sum(kept.values()) < 1.3 * estimate


def test_the_embedded_tower_goes_by_length_and_in_pieces():
    encoder = embedded_encoder()
    learner = PromptLearner(encoder, encoder.class_names[:12], n_ctx=4)
    plain = encoder.encode_token_embeddings(learner(), learner.attention_mask)
    expected = features_and_gradient(learner, plain)
    for memory in (2**32, 1):
        tower = PromptTower(encoder, learner, memory=memory)
        assert tower.shared == 0
        for got, wanted in zip(features_and_gradient(learner, tower()), expected, strict=True):
            assert torch.allclose(got, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(0, 50), st.integers(1, 40))
def test_the_plan_holds_every_class_once_and_keeps_its_bounds(lengths, spare, most):
    pieces = by_length(lengths, spare)
    assert sorted(index for piece in pieces for index in piece.classes) == list(range(len(lengths)))
    for piece in pieces:
        assert piece.length == max(lengths[index] for index in piece.classes)
        assert piece.tokens - sum(lengths[index] for index in piece.classes) <= spare
    parts = cut(pieces, most)
    assert [i for part in parts for i in part.classes] == [i for piece in pieces for i in piece.classes]
    assert all(part.tokens <= most or len(part.classes) == 1 for part in parts)


def test_without_padding_a_length_is_a_group():
    assert by_length([3, 5, 3, 4], 0) == [Piece((1,), 5), Piece((3,), 4), Piece((0, 2), 3)]
    assert by_length([3, 5, 3, 4], 1) == [Piece((1, 3), 5), Piece((0, 2), 3)]
