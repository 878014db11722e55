"""The paper's scorer: how far CLIP's logit of the true class falls from the source to the candidate.

In float32: in half precision a logit near 25 has a step of 1/64, and the drop is compared with thresholds.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from db.files import atomic_file
from generation.checkpoints import find_checkpoint
from generation.classes import load_imagenet_classes
from generation.compiling import Compiler
from generation.devices import exact_float32, lay_out_convolutions, pick_device, run_in_batches, to_device
from generation.protocols import Score, ScoreRequest
from generation.tuning import BatchKnob, BatchSize
from generation.weights import WrongWeights
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.scores import DROP_TEMPLATE, class_text_features

TOP = 5


class ClipScorer:
    """A :class:`~generation.protocols.Scorer` on the 1000 ImageNet classes. Thread-safe.

    Logits are ``logit_scale * cosine`` (100 for OpenAI's weights) of the image with "a photo of a {class}";
    ``residual`` is the candidate's, ``rank`` and ``probability`` are among the 1000 classes on the candidate.
    ``variant`` names OpenAI weights of the manifest ("clip_vit_b_16" as published, "clip_vit_b_32",
    "clip_rn50"), ``weights`` another file. The class prompts' features are computed once and kept in
    ``cache_dir`` as ``clip-text-<key>.npz``, by weights, prompt and classes. ``batch_size`` pairs go through
    at once, source and candidate in one forward pass. ``compiled`` sends the image tower through torch.compile
    and ``channels_last`` lays its convolutions out so; neither changes more than the last bits.
    Raises WeightsMissing, WrongWeights and DeviceUnavailable.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        *,
        variant: str = "clip_vit_b_16",
        quick_gelu: bool = True,
        cache_dir: Path | str | None = None,
        batch_size: int = 32,
        device: torch.device | str = "auto",
        compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        self._batch = BatchSize(batch_size)
        self._quick_gelu = quick_gelu
        self._checkpoint = find_checkpoint(variant, weights)
        self._classes = load_imagenet_classes()
        try:
            self._model = OpenClipModel.from_file(
                self._checkpoint.path, quick_gelu=quick_gelu, device=pick_device(device)
            )
        except ValueError as error:
            raise WrongWeights(f"{self._checkpoint.path} is not CLIP's weights: {error}") from error
        if compiled:
            _compile_image_tower(self._model.model.visual)
        self._compiled = compiled
        self._channels_last = channels_last
        self._lay_out(channels_last)
        self._text = self._text_features(Path(cache_dir) if cache_dir else None)

    def fingerprint(self) -> dict[str, object]:
        return {
            "name": "clip",
            "grade": "paper",
            "logit_scale": self._model.logit_scale,
            "quick_gelu": self._quick_gelu,
            "image_size": self._model.image_size,
            "prompt_template": DROP_TEMPLATE,
            "classes_sha256": self._classes.sha256,
            "weights_sha256": {"clip": self._checkpoint.sha256},
        }

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order; images are ``HxWx3 uint8`` of any size."""
        return run_in_batches(
            self._score_batch, requests, self._batch.now, on_oom=self._batch.set, what="image pairs for CLIP"
        )

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The number of pairs at once (:class:`~generation.tuning.Tunable`); their size costs no GPU time."""
        image = np.zeros((*image_size, 3), np.uint8)

        @torch.inference_mode()
        def encode(size: int) -> None:
            self._logits(self._inputs([image]).repeat(2 * size, 1, 1, 1)).cpu()

        facts = {**self.fingerprint(), "dtype": "float32", "compiled": self._compiled}
        on_gpu = self._model.device.type == "cuda"
        return [BatchKnob("scorer", ("score",), self._batch, on_gpu, facts, encode, self._lay_out)]

    def _lay_out(self, channels_last: bool | None) -> None:
        wanted = self._channels_last if channels_last is None else channels_last
        lay_out_convolutions(self._model.model.visual, wanted)

    def _inputs(self, images: Sequence[np.ndarray]) -> Tensor:
        """``[N, 3, S, S]`` float32 on the device, as the network wants them."""
        return to_device(torch.stack([self._model.preprocess(image) for image in images]), self._model.device)

    def _logits(self, inputs: Tensor) -> Tensor:
        """``[N, 1000]`` on the device."""
        with exact_float32():
            features, _ = self._model.encode_image(inputs)
        return self._model.logit_scale * F.normalize(features, dim=-1) @ self._text.T

    @torch.inference_mode()
    def _score_batch(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        images = [request.source for request in requests] + [request.candidate for request in requests]
        logits = self._logits(self._inputs(images)).cpu()
        scores = []
        for request, source, candidate in zip(requests, *logits.chunk(2), strict=True):
            index = request.class_index
            scores.append(
                Score(
                    logit_source=float(source[index]),
                    logit_candidate=float(candidate[index]),
                    residual=float(candidate[index]),
                    rank=int((candidate > candidate[index]).sum()) + 1,
                    probability=float(candidate.softmax(0)[index]),
                    top5=tuple(candidate.topk(TOP).indices.tolist()),
                )
            )
        return scores

    @torch.inference_mode()
    def _text_features(self, cache_dir: Path | None) -> Tensor:
        """Unit features ``[1000, D]`` of the class prompts on the model's device."""
        if cache_dir is None:
            return class_text_features(self._model, self._classes.names)
        facts = [self._checkpoint.sha256, self._quick_gelu, DROP_TEMPLATE, self._classes.sha256]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        path = cache_dir / f"clip-text-{key}.npz"
        cached = _read_features(path, (len(self._classes), self._model.feature_dim))
        if cached is None:
            cached = class_text_features(self._model, self._classes.names).cpu().numpy()
            with atomic_file(path) as handle:
                np.savez(handle, features=cached)
        return torch.from_numpy(cached).to(self._model.device)


def _compile_image_tower(visual: nn.Module) -> None:
    """Its blocks one by one: they are alike, so one is compiled for all, and the local features read the last."""
    compiler = Compiler("CLIP's image tower")
    if isinstance(visual, ModifiedResNet):
        for name in ("layer1", "layer2", "layer3", "layer4"):
            setattr(visual, name, compiler.wrap(getattr(visual, name)))
        return
    blocks = visual.transformer.resblocks
    visual.transformer.resblocks = nn.ModuleList([*map(compiler.wrap, blocks[:-1]), blocks[-1]])


def _read_features(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The cached features; None where there are none or the file is damaged, so that they are made anew."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            features = archive["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
