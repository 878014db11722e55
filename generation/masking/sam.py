"""Segment Anything (segment-anything 1.0) without its predictor, which holds one image at a time.

The image encoder, nearly all of the work, runs on a batch; prompts are then decoded image by image from
embeddings that are plain values. The steps and their order are the predictor's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from generation.checkpoints import find_checkpoint, load_into
from generation.compiling import Compiler
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
from generation.tuning import BatchKnob, BatchSize


@dataclass(frozen=True)
class SamEmbedding:
    """What the encoder makes of one image: ``features [1, 256, 64, 64]`` float32 on the model's device.

    ``input_size`` is the image's ``(H, W)`` inside the padded 1024x1024 input, ``original_size`` its own.
    """

    features: Tensor
    input_size: tuple[int, int]
    original_size: tuple[int, int]


class SamSegmenter:
    """A frozen SAM. Thread-safe; keeps nothing of an image.

    ``variant`` is a name in segment-anything's ``sam_model_registry`` ("vit_h" as published, "vit_l", "vit_b")
    and ``weights`` its checkpoint (default: the manifest's ``sam_<variant>``). ``batch_size`` images and
    ``prompt_batch`` prompts of one image go through at once. The encoder runs in ``precision``, with
    ``compiled`` through torch.compile (slow to start, pays over thousands of images), with ``channels_last`` its
    convolutions in that layout; prompts and masks are decoded in float32.
    Raises WeightsMissing, WrongWeights, DeviceUnavailable, and ValueError for an unknown variant.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        *,
        variant: str = "vit_h",
        batch_size: int = 4,
        prompt_batch: int = 16,
        device: torch.device | str = "auto",
        precision: Precision = "auto",
        compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        if variant not in sam_model_registry:
            raise ValueError(f"There is no SAM variant {variant!r}. Choose from: {', '.join(sam_model_registry)}.")
        if batch_size < 1 or prompt_batch < 1:
            raise ValueError(f"Batch sizes must be at least 1, got {batch_size} images, {prompt_batch} prompts.")
        self._variant = variant
        self._batch = BatchSize(batch_size)
        self._prompt_batch = prompt_batch
        self._device = pick_device(device)
        self._dtype = pick_dtype(self._device, precision)
        self._checkpoint = find_checkpoint(f"sam_{variant}", weights)
        self._model: Sam = sam_model_registry[variant]()
        load_into(self._model, self._checkpoint, f"SAM {variant}")
        self._model.eval().requires_grad_(False).to(self._device)
        encoder = self._model.image_encoder
        self._channels_last = channels_last
        self._lay_out(channels_last)
        self._compiled = compiled
        self._encoder: Callable[[Tensor], Tensor] = Compiler("SAM's encoder").wrap(encoder) if compiled else encoder
        self._transform = ResizeLongestSide(encoder.img_size)

    def fingerprint(self) -> dict[str, object]:
        """JSON-able: what decides the masks."""
        return {
            "variant": self._variant,
            "encoder_dtype": dtype_name(self._dtype),
            "mask_threshold": self._model.mask_threshold,
            "weights_sha256": {f"sam_{self._variant}": self._checkpoint.sha256},
        }

    def encode(self, images: Sequence[np.ndarray]) -> list[SamEmbedding]:
        """The embeddings of ``HxWx3 uint8`` images of any sizes."""
        return run_in_batches(
            self._encode_batch, images, self._batch.now, on_oom=self._batch.set, what="images for SAM's encoder"
        )

    def outline_boxes(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each image the union of its boxes' masks, ``HxW uint8`` 0/255.

        ``boxes`` are ``[K, 4]`` floats ``x0, y0, x1, y1`` in pixels, at least one an image.
        """

        def outline(batch: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
            embeddings = self._encode_batch([image for image, _ in batch])
            return [self._union(one, prompts) for one, (_, prompts) in zip(embeddings, batch, strict=True)]

        return run_in_batches(
            outline,
            list(zip(images, boxes, strict=True)),
            self._batch.now,
            on_oom=self._batch.set,
            what="images for SAM",
        )

    @torch.inference_mode()
    def decode(
        self,
        embedding: SamEmbedding,
        *,
        boxes: np.ndarray | None = None,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        several: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks ``[B, C, H, W]`` bool at the image's size and their predicted IoU ``[B, C]`` float32.

        A prompt is a box of ``[B, 4]``, or the ``N`` points of ``[B, N, 2]`` (``x, y``) with labels ``[B, N]``
        (1 object, 0 not), or both; all in pixels of the image. ``C`` is 3 guesses if ``several``, else 1.
        """
        if boxes is not None:
            boxes = self._prompt(self._transform.apply_boxes(boxes, embedding.original_size), torch.float32)
        coordinates = None
        if points is not None:
            points = self._prompt(self._transform.apply_coords(points, embedding.original_size), torch.float32)
            coordinates = points, self._prompt(labels, torch.int32)
        sparse, dense = self._model.prompt_encoder(points=coordinates, boxes=boxes, masks=None)
        logits, quality = self._model.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=self._model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        logits = self._model.postprocess_masks(logits, embedding.input_size, embedding.original_size)
        return (logits > self._model.mask_threshold).cpu().numpy(), quality.cpu().numpy()

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The encoder's batch size (:class:`~generation.tuning.Tunable`); all images cost it the same."""
        image = np.zeros((*image_size, 3), np.uint8)

        @torch.inference_mode()
        def encode(size: int) -> None:
            self._features(self._inputs([image]).repeat(size, 1, 1, 1)).sum().item()

        facts = {**self.fingerprint(), "compiled": self._compiled}
        on_gpu = self._device.type == "cuda"
        return [BatchKnob("segmenter", ("mask",), self._batch, on_gpu, facts, encode, self._lay_out)]

    def _lay_out(self, channels_last: bool | None) -> None:
        wanted = self._channels_last if channels_last is None else channels_last
        lay_out_convolutions(self._model.image_encoder, wanted)

    def _shrink_prompts(self, batch_size: int) -> None:
        self._prompt_batch = batch_size

    def _prompt(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=self._device)

    @torch.inference_mode()
    def _encode_batch(self, images: Sequence[np.ndarray]) -> list[SamEmbedding]:
        features = self._features(self._inputs(images))
        shape, longest = self._transform.get_preprocess_shape, self._transform.target_length
        return [
            SamEmbedding(one[None].float(), shape(*image.shape[:2], longest), image.shape[:2])
            for one, image in zip(features, images, strict=True)
        ]

    def _inputs(self, images: Sequence[np.ndarray]) -> Tensor:
        """``[N, 3, 1024, 1024]`` float32 on the device: resized, normalised, padded."""
        resized = [torch.from_numpy(self._transform.apply_image(image)).permute(2, 0, 1) for image in images]
        return torch.stack([self._model.preprocess(to_device(one.contiguous(), self._device)) for one in resized])

    def _features(self, inputs: Tensor) -> Tensor:
        """``[N, 256, 64, 64]``, in the encoder's own precision."""
        with autocast(self._device, self._dtype):
            return self._encoder(inputs)

    def _union(self, embedding: SamEmbedding, boxes: np.ndarray) -> np.ndarray:
        masks = run_in_batches(
            lambda batch: self.decode(embedding, boxes=np.asarray(batch))[0][:, 0],
            boxes,
            self._prompt_batch,
            on_oom=self._shrink_prompts,
            what="box prompts for SAM",
        )
        return np.where(np.any(masks, axis=0), np.uint8(255), np.uint8(0))
