"""Learned prompts on a tiny CLIP and on the embedded encoder."""

from __future__ import annotations

import pytest
import torch

from generation.classes import load_imagenet_classes
from ospcoop.clip.embedded import EmbeddedDualEncoder
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.prompt_learner import PromptLearner, cosine_logits
from tests.tiny_clip import tiny_state_dict

NAMES = ["tench", "great_white_shark", "jack-o'-lantern"]


@pytest.fixture(scope="module")
def model():
    return OpenClipModel(tiny_state_dict())


def words(learner):
    """Which prompt row each position shows: c0.. for context vectors, else the token id."""
    with torch.no_grad():
        context = torch.arange(1.0, 1.0 + learner.n_ctx)[:, None].expand_as(learner.context) * 1000
        learner.context.copy_(context)
        rows = learner()
    return [
        [f"c{int(vector[0]) // 1000 - 1}" if vector[0] >= 1000 else None for vector in row.unbind()]
        for row in rows.unbind()
    ]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("end", [None, "c0", "c1", "c2", None, None, None, None, None]),
        ("middle", [None, "c0", None, None, None, "c1", "c2", None, None]),
        ("front", [None, None, None, None, "c0", "c1", "c2", None, None]),
    ],
)
def test_layouts(model, position, expected):
    learner = PromptLearner(model, NAMES, n_ctx=3, class_position=position)
    length = learner.attention_mask.shape[1]
    assert learner.name_lengths[1] == 3
    assert words(learner)[1] == expected + [None] * (length - len(expected))
    embedded = model.embed_tokens(learner.token_ids)[1]
    name = {"end": 4, "middle": 2, "front": 1}[position]
    assert torch.equal(learner()[1, name : name + 3], embedded[4:7])
    assert torch.equal(learner()[1, 7:], embedded[7:]), "full stop and end token stay where they are"


def test_only_the_tokens_of_the_longest_prompt_are_kept_and_nothing_changes(model):
    learner = PromptLearner(model, NAMES)
    short, mask = learner(), learner.attention_mask
    longest = 16 + max(learner.name_lengths) + 3
    assert short.shape == (3, longest, 64)
    padding = model.embed_tokens(torch.zeros(3, 77 - longest, dtype=torch.int64))
    whole = torch.cat([short, padding], dim=1) + model.model.positional_embedding
    hidden = model.model.ln_final(model.model.transformer(whole, attn_mask=model.model.attn_mask))
    end = mask.sum(1) - 1
    reference = hidden[torch.arange(3), end] @ model.model.text_projection
    assert torch.allclose(learner.text_features(model), reference, atol=1e-5)
    padded = torch.cat([short, padding], dim=1), torch.nn.functional.pad(mask, (0, 77 - longest))
    assert torch.allclose(model.encode_token_embeddings(*padded), reference, atol=1e-5)


def test_plain_words_in_the_context_give_the_plain_prompt(model):
    learner = PromptLearner(model, NAMES, init_words="a photo of a")
    assert learner.n_ctx == 4
    plain = model.encode_text([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    assert torch.allclose(learner.text_features(model), plain, atol=1e-6)


def test_rare_words_give_a_vector_a_token_or_as_published_a_vector_a_word(model):
    phrase = "chiaroscuro photo of"
    _, mask = model.tokenize([phrase])
    tokens = int(mask.sum()) - 2
    assert tokens > 3
    assert PromptLearner(model, NAMES, init_words=phrase).n_ctx == tokens
    published = PromptLearner(model, NAMES, init_words=phrase, as_published=True)
    assert published.n_ctx == 3
    plain = model.encode_text([f"{phrase} {name.replace('_', ' ')}." for name in NAMES])
    assert torch.allclose(published.text_features(model), plain, atol=1e-6)


def test_class_specific_contexts_move_apart(model):
    learner = PromptLearner(model, NAMES, n_ctx=2, class_specific=True)
    assert learner.context.shape == (3, 2, 64)
    learner.text_features(model)[1].sum().backward()
    moved = learner.context.grad.abs().sum((1, 2))
    assert moved[1] > 0 and moved[0] == moved[2] == 0


def test_a_checkpoint_holds_the_context_alone_and_the_seed_fixes_it(model):
    learner = PromptLearner(model, NAMES, seed=5)
    assert list(learner.state_dict()) == ["context"]
    assert [name for name, _ in learner.named_parameters()] == ["context"]
    assert torch.equal(learner.context, PromptLearner(model, NAMES, seed=5).context)
    assert not torch.equal(learner.context, PromptLearner(model, NAMES, seed=6).context)
    assert learner.context.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": []}, "at least one class"),
        ({"n_ctx": 0}, "at least one context vector"),
        ({"init_words": "  "}, "at least one context vector"),
        ({"class_position": "left"}, "'end', 'middle' or 'front'"),
        ({"n_ctx": 74}, "77 are possible"),
    ],
)
def test_faulty_arguments_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        PromptLearner(model, **{"class_names": NAMES, **arguments})


def test_the_embedded_encoder_learns_prompts_too():
    names = load_imagenet_classes().names
    model = EmbeddedDualEncoder(names)
    assert isinstance(model, VisionLanguageModel)
    learner = PromptLearner(model, names[:3], init_words="a photo of a", class_position="end")
    plain = model.encode_text([f"a photo of a {name}." for name in names[:3]])
    text = learner.text_features(model)
    assert torch.allclose(text, plain, atol=1e-5)
    cosine_logits(torch.randn(2, model.feature_dim), text, model.logit_scale).sum().backward()
    assert learner.context.grad.abs().sum() > 0
