"""GroundingDINO (Swin-T OGC, the groundingdino-py package): boxes around what a class name says.

The package's model is built by its own builder and called directly, a batch of images with one caption each;
its ``predict`` helpers know one image. Version 0.4.0 holds deformable attention in plain PyTorch only, so
nothing has to be compiled, on a CPU or a GPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from groundingdino.config import GroundingDINO_SwinT_OGC
from groundingdino.datasets.transforms import resize
from groundingdino.models import build_model
from groundingdino.util.misc import NestedTensor
from groundingdino.util.slconfig import SLConfig
from groundingdino.util.utils import get_phrases_from_posmap
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_convert

from db.files import sha256_file
from generation.checkpoints import find_checkpoint, load_into
from generation.devices import (
    Precision,
    autocast,
    dtype_name,
    lay_out_convolutions,
    pick_device,
    pick_dtype,
    run_in_batches,
    to_device,
)
from generation.masking.prompts import prompt_for
from generation.protocols import Box
from generation.tuning import BatchKnob, BatchSize
from generation.weights import WeightsMissing, locate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The checkpoint brings BERT's weights too, so of the BERT folder only these decide what comes out.
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

log = logging.getLogger(__name__)


class GroundingDinoDetector:
    """Boxes for one class an image. Thread-safe; keeps nothing of an image.

    ``weights`` is the checkpoint and ``text_encoder`` a BERT folder (default: the manifest's "groundingdino"
    and "bert"). ``architecture`` overrides entries of the package's Swin-T OGC configuration.
    A query counts when its best token exceeds ``box_threshold`` and the ``max_boxes`` most confident are kept;
    the phrase is made of the tokens above ``text_threshold`` and recorded, never compared with the class (as
    published). Images are resized to ``short_side`` pixels, but no longer than ``max_side``.

    ``batch_size`` images of equal resized size go through at once; nothing is padded, so a batch equals its
    images up to rounding. Only the image backbone runs in ``precision``; text, fusion, deformable attention
    and the box heads stay in float32, where a rounding error moves a score across a threshold and, in the
    fusion's softmax, depends on the rest of the batch. ``channels_last`` lays that backbone's convolutions
    out so, which changes the last bits at most. Nothing here goes through torch.compile: it is lost for many
    minutes in the windows' arithmetic, whose sizes differ from layer to layer.
    Raises WeightsMissing, WrongWeights, DeviceUnavailable, and ValueError for parameters out of range.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        text_encoder: Path | str | None = None,
        *,
        architecture: Mapping[str, object] | None = None,
        box_threshold: float = 0.3,
        text_threshold: float = 0.25,
        max_boxes: int = 32,
        short_side: int = 800,
        max_side: int = 1333,
        batch_size: int = 8,
        device: torch.device | str = "auto",
        precision: Precision = "auto",
        channels_last: bool = False,
    ) -> None:
        if not (0 < box_threshold < 1 and 0 < text_threshold < 1):
            raise ValueError(f"Thresholds lie between 0 and 1, got box {box_threshold} and text {text_threshold}.")
        if max_boxes < 1 or batch_size < 1:
            raise ValueError(f"max_boxes and batch_size must be at least 1, got {max_boxes} and {batch_size}.")
        if not 1 <= short_side <= max_side:
            raise ValueError(f"Sides must satisfy 1 <= short_side <= max_side, got {short_side}, {max_side}.")
        self._box_threshold = box_threshold
        self._text_threshold = text_threshold
        self._max_boxes = max_boxes
        self._short_side = short_side
        self._max_side = max_side
        self._batch = BatchSize(batch_size)
        self._architecture = dict(architecture or {})
        self._device = pick_device(device)
        self._dtype = pick_dtype(self._device, precision)
        self._checkpoint = find_checkpoint("groundingdino", weights)
        folder = locate("bert") if text_encoder is None else Path(text_encoder)
        self._text_sha256 = _text_files_sha256(folder)
        self._model = _build(folder, self._architecture)
        load_into(self._model, self._checkpoint, "GroundingDINO")
        self._model.backbone[0] = _AutocastBackbone(self._model.backbone[0], self._device, self._dtype)
        self._channels_last = channels_last
        self._lay_out(channels_last)
        for layer in self._model.transformer.encoder.text_layers:
            layer.register_forward_pre_hook(_repeat_mask_for_heads, with_kwargs=True)
        self._model.eval().requires_grad_(False).to(self._device)
        # Two threads must not use one fast tokenizer at once, and the model calls its own inside forward.
        self._lock = threading.Lock()

    def fingerprint(self) -> dict[str, object]:
        """JSON-able: what decides the boxes."""
        return {
            "box_threshold": self._box_threshold,
            "text_threshold": self._text_threshold,
            "max_boxes": self._max_boxes,
            "short_side": self._short_side,
            "max_side": self._max_side,
            "architecture": self._architecture,
            "prompt": prompt_for("{class}"),
            "backbone_dtype": dtype_name(self._dtype),
            "weights_sha256": {"groundingdino": self._checkpoint.sha256, **self._text_sha256},
        }

    def detect(self, images: Sequence[np.ndarray], class_names: Sequence[str]) -> list[tuple[Box, ...]]:
        """For each ``HxWx3 uint8`` image the boxes of its class, most confident first; () when there are none.

        Corners are in pixels of the image as given and may lie a little outside it.
        """
        items = [(image, prompt_for(name)) for image, name in zip(images, class_names, strict=True)]
        groups: dict[tuple[int, int], list[int]] = {}
        resized = [self._resize(image) for image, _ in items]
        for index, small in enumerate(resized):
            groups.setdefault(small.size, []).append(index)
        found: dict[int, tuple[Box, ...]] = {}
        for indices in groups.values():
            boxes = run_in_batches(
                lambda batch: self._detect_batch(
                    [resized[i] for i in batch], [items[i][1] for i in batch], [items[i][0].shape[:2] for i in batch]
                ),
                indices,
                self._batch.now,
                on_oom=self._batch.set,
                what="images for GroundingDINO",
            )
            found.update(zip(indices, boxes, strict=True))
        return [found[index] for index in range(len(items))]

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The batch size for images of ``image_size`` (:class:`~generation.tuning.Tunable`)."""
        image = self._resize(np.zeros((*image_size, 3), np.uint8))

        def detect(size: int) -> None:
            self._detect_batch([image] * size, [prompt_for("great white shark")] * size, [image_size] * size)

        facts = {**self.fingerprint(), "image_size": list(image_size)}
        on_gpu = self._device.type == "cuda"
        return [BatchKnob("detector", ("mask", "score"), self._batch, on_gpu, facts, detect, self._lay_out)]

    def _lay_out(self, channels_last: bool | None) -> None:
        wanted = self._channels_last if channels_last is None else channels_last
        lay_out_convolutions(self._model.backbone[0], wanted)

    def _resize(self, image: np.ndarray) -> Image.Image:
        return resize(Image.fromarray(image), None, self._short_side, self._max_side)[0]

    @torch.inference_mode()
    def _detect_batch(
        self, images: Sequence[Image.Image], prompts: Sequence[str], shapes: Sequence[tuple[int, int]]
    ) -> list[tuple[Box, ...]]:
        stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        pixels = _normalise(to_device(stacked, self._device))
        padding = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.bool, device=self._device)
        with self._lock:
            outputs = self._model(NestedTensor(pixels, padding), captions=list(prompts))
            token_ids = self._model.tokenizer(list(prompts))["input_ids"]
            answers = zip(outputs["pred_logits"].sigmoid(), outputs["pred_boxes"], token_ids, shapes, strict=True)
            return [self._boxes(*answer) for answer in answers]

    def _boxes(self, scores: Tensor, centred: Tensor, token_ids: list[int], shape: tuple[int, int]) -> tuple[Box, ...]:
        """Boxes of one image from scores ``[Q, 256]`` of query and token and relative ``cx, cy, w, h [Q, 4]``."""
        best = scores.amax(1)
        passing = best.sort(descending=True, stable=True).indices[: int((best > self._box_threshold).sum())]
        kept = passing[: self._max_boxes]
        height, width = shape
        corners = box_convert(centred[kept].cpu(), "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        above = (scores[kept] > self._text_threshold)[:, : len(token_ids)].cpu()
        above[:, [0, -1]] = False  # the tokenizer's marks of begin and end are no words
        phrases = [get_phrases_from_posmap(row, {"input_ids": token_ids}, self._model.tokenizer) for row in above]
        return tuple(
            Box(*corner, phrase=phrase.replace(".", "").strip(), confidence=confidence)
            for corner, phrase, confidence in zip(corners.tolist(), phrases, best[kept].tolist(), strict=True)
        )


class _AutocastBackbone(nn.Module):
    """The image backbone in low precision, its feature maps back in float32."""

    def __init__(self, inner: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self._device, self._dtype = device, dtype

    def forward(self, images: NestedTensor) -> dict[int, NestedTensor]:
        with autocast(self._device, self._dtype):
            maps = self.inner(images)
        return {level: NestedTensor(one.tensors.float(), one.mask) for level, one in maps.items()}


def _repeat_mask_for_heads(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """A forward pre-hook: the text mask ``[N, L, L]`` as ``[N * heads, L, L]``, image by image.

    The layer would repeat it head by head, while attention reads it image by image, so that with captions of
    different lengths an image would get another's mask. It leaves alone what already has this shape.
    """
    return args, {**kwargs, "src_mask": kwargs["src_mask"].repeat_interleave(layer.nhead, dim=0)}


def _normalise(pixels: Tensor) -> Tensor:
    """``[N, H, W, 3] uint8`` to ``[N, 3, H, W] float32``, ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1)
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _text_files_sha256(folder: Path) -> dict[str, str]:
    paths = [folder / name for name in TEXT_FILES if (folder / name).is_file()]
    if not (folder / "config.json").is_file():
        raise WeightsMissing(f"{folder} is no BERT folder: it has no config.json.")
    return {f"bert/{path.name}": sha256_file(path) for path in paths}


def _build(text_encoder: Path, architecture: Mapping[str, object]) -> nn.Module:
    published = {key: value for key, value in vars(GroundingDINO_SwinT_OGC).items() if not key.startswith("__")}
    unknown = set(architecture) - set(published)
    if unknown:
        raise ValueError(f"Not in GroundingDINO's configuration: {', '.join(sorted(unknown))}.")
    # Checkpointing saves memory in training only; it is no part of the weights.
    inference = {"use_checkpoint": False, "use_transformer_ckpt": False, "text_encoder_type": str(text_encoder)}
    said = StringIO()
    with redirect_stdout(said):  # the package prints
        model = build_model(SLConfig({**published, **architecture, **inference}))
    log.debug("groundingdino: %s", said.getvalue().strip())
    return model
