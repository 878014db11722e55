"""clip_tiny, clip_local, clip_rn, prompt_learner and clip_score: the two towers and what stands on them."""

from __future__ import annotations

import re

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer

from generation.id_aug import score_in_name
from ospcoop.clip.openclip import OpenClipModel, tokens_before_last_block, value_path
from ospcoop.clip.preprocess import normalise, resize_and_crop, to_tensor
from ospcoop.clip.scores import class_drop, class_text_features
from ospcoop.conformance.vectors import Vectors
from ospcoop.prompt_learner import PromptLearner, cosine_logits

FEATURE = 2e-5
LOGIT = 3e-4
TINY_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection", "logit_scale")
PROMPT_CASES = ("end", "middle", "front", "csc_end", "csc_middle", "init_end", "init_middle", "n5_middle")


def build_model(vectors: Vectors) -> OpenClipModel:
    """The tiny CLIP of clip_tiny.npz, through the project's own loader."""
    state = {name: torch.from_numpy(vectors.input(name).astype(np.float32)) for name in vectors.names}
    model = OpenClipModel(state)
    loaded = model.model.state_dict()
    with vectors.case("state_dict"):
        for name in vectors.names:
            vectors.check(name, loaded[name])
    return model


def _pixels(images: np.ndarray) -> torch.Tensor:
    return normalise(torch.stack([to_tensor(image) for image in images]))


def check_local(vectors: Vectors, model: OpenClipModel) -> None:
    """Features, tokens, logits and preprocessing (clip_local.npz)."""
    with vectors.case("images and texts"), torch.no_grad():
        pixels = _pixels(vectors.input("images_u8"))
        corner = vectors.input("input_first").shape
        vectors.check("input_first", pixels[0, : corner[0], : corner[1], : corner[2]], abs=1e-6)
        whole, local = model.encode_image(pixels)
        vectors.check("image_features", whole, abs=FEATURE)
        vectors.check("local_features", local, abs=FEATURE)
        tokens = tokens_before_last_block(model.model.visual, pixels[:1])
        vectors.check("last_block_in_img0", tokens[0], abs=FEATURE)
        leaving = value_path(model.model.visual.transformer.resblocks[-1], tokens)
        vectors.check("last_block_value_img0", leaving[0], abs=FEATURE)
        texts = vectors.strings("texts")
        vectors.check("token_ids", padded(model, texts))
        text = model.encode_text(texts)
        vectors.check("text_features", text, abs=FEATURE)
        vectors.check("logits_per_image", cosine_logits(whole, text, model.logit_scale), abs=LOGIT)
    numbers = [name.rpartition("_")[2] for name in vectors.names if re.fullmatch(r"preprocess_in_\d+", name)]
    for number in numbers or ["0"]:
        with vectors.case(f"preprocess_{number}"):
            image = vectors.input(f"preprocess_in_{number}")
            vectors.check(f"preprocess_out_u8_{number}", resize_and_crop(image, model.image_size))


def padded(model: OpenClipModel, texts: list[str]) -> np.ndarray:
    """Token ids as the published tokeniser gives them, zeros up to the context length."""
    ids, _ = model.tokenize(texts)
    return np.pad(ids.cpu().numpy(), ((0, 0), (0, model.context_length - ids.shape[1])))


def check_resnet(vectors: Vectors, tiny: Vectors) -> None:
    """The ResNet tower (clip_rn.npz); the text tower that a whole model needs is lent by clip_tiny."""
    with vectors.case("resnet"):
        names = [name for name in vectors.names if name.startswith("visual.")]
        state = {name: torch.from_numpy(vectors.input(name)) for name in names}
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        text = {n: torch.from_numpy(tiny.input(n)).float() for n in tiny.names if n.startswith(TINY_TEXT)}
        width = text["text_projection"].shape[0]
        text["text_projection"] = torch.zeros(width, state["visual.attnpool.c_proj.weight"].shape[0])
        model = OpenClipModel({**text, **state})
        loaded = model.model.state_dict()
        for name in names:
            vectors.check(name, loaded[name])
        whole, local = model.encode_image(_pixels(vectors.input("in_images_u8")))
        vectors.check("out_image_features", whole, abs=1e-4)
        vectors.check("out_local_features", local, abs=1e-4)


def check_prompts(vectors: Vectors, model: OpenClipModel) -> None:
    """Every prompt layout (prompt_learner.npz); the case's name says which."""
    with vectors.case("images"):
        features = model.encode_image(_pixels(vectors.input("images_u8")))
        for case in vectors.cases(".ctx", PROMPT_CASES):
            with vectors.case(case), torch.no_grad():
                _check_prompt(vectors, case, model, *features)


def _check_prompt(vectors: Vectors, case: str, model: OpenClipModel, whole: torch.Tensor, local: torch.Tensor) -> None:
    parts = case.split("_")
    learner = PromptLearner(
        model,
        vectors.strings("classnames"),
        n_ctx=int(vectors.input(f"{case}.n_ctx")),
        init_words=_init_words(vectors, case) if "init" in parts else None,
        class_specific="csc" in parts,
        class_position=parts[-1],
        as_published=True,
    )
    vectors.check(f"{case}.n_ctx", learner.n_ctx)
    vectors.check(f"{case}.name_lens", learner.name_lengths)
    ids = learner.token_ids.cpu().numpy()
    ids = np.pad(ids, ((0, 0), (0, model.context_length - ids.shape[1])))
    vectors.check(f"{case}.tokenized_prompts", ids)
    if "init" in parts:
        vectors.check(f"{case}.ctx", learner.context)
    else:
        learner.context.copy_(torch.from_numpy(vectors.input(f"{case}.ctx")))
    text = learner.text_features(model)
    vectors.check(f"{case}.text_features", text, abs=FEATURE)
    vectors.check(f"{case}.logits", cosine_logits(whole, text, model.logit_scale), abs=LOGIT)
    if f"{case}.logits_local" in vectors or parts[0] in ("end", "middle", "front"):
        vectors.check(f"{case}.logits_local", cosine_logits(local, text, model.logit_scale), abs=LOGIT)


def _init_words(vectors: Vectors, case: str) -> str:
    """The initial words, which the file holds as token ids only: what stands before the first class's name."""
    row = vectors.input(f"{case}.tokenized_prompts")[0].tolist()
    end = row.index(max(row)) - 1 - int(vectors.input(f"{case}.name_lens")[0])
    return SimpleTokenizer().decode(row[1:end]).strip()


def check_drop(vectors: Vectors, model: OpenClipModel) -> None:
    """The CLIP drop (clip_score.npz) and the file name it was published in."""
    with vectors.case("score"):
        text = class_text_features(model, vectors.strings("classnames"))
        raw, inpainted = vectors.input("raw_u8"), vectors.input("inpainted_u8")
        drop = class_drop(model, list(raw), list(inpainted), vectors.input("class_index"), text)
        vectors.check("score", drop, abs=LOGIT)
        read = [score_in_name(name) for name in vectors.strings("filename")]
        fits = None not in read and bool(np.allclose(np.array(read, dtype=float), drop, rtol=0, atol=LOGIT))
        vectors.note("filename", fits, "format: the score is read back from <wnid>_<id>_<score>.JPEG")
