"""LaMa (big-lama) as the TorchScript file that simple-lama-inpainting loads, without that package's one image.

The file's contract: image ``[N, 3, H, W]`` float32 in 0..1 and hole ``[N, 1, H, W]`` 0/1, sides divisible
by 8, to ``[N, 3, H, W]`` in 0..1. The package returns the *padded* size, and counts any non-zero mask pixel
as hole; here the padding is cropped and the mask thresholded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from simple_lama_inpainting.utils.util import ceil_modulo
from torch import Tensor

from generation.checkpoints import find_checkpoint
from generation.devices import pick_device, run_in_batches, to_device
from generation.protocols import InpaintResult
from generation.tuning import BatchKnob, BatchSize
from generation.weights import WrongWeights

MODULO = 8


class LamaInpainter:
    """An :class:`~generation.protocols.Inpainter`. Thread-safe.

    ``weights`` is the TorchScript file (default: ``LAMA_MODEL`` or the manifest's "big_lama"). Pixels of the
    mask above ``threshold`` are hole. ``batch_size`` images of equal padded size go through at once; where memory
    runs out, fewer of that size from then on. float32 throughout: its Fourier convolutions have no bfloat16.
    ``channels_last`` changes the memory layout only. TorchScript cannot go through torch.compile.
    Raises WeightsMissing, DeviceUnavailable, and WrongWeights for a file that is not such a module (when its
    answer has another shape: at the first image).
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        *,
        threshold: int = 127,
        batch_size: int = 8,
        device: torch.device | str = "auto",
        channels_last: bool = False,
    ) -> None:
        if not 0 <= threshold < 255:
            raise ValueError(f"threshold must be 0 to 254, got {threshold}.")
        self._threshold = threshold
        self._batch = BatchSize(batch_size)
        self._fitting: dict[tuple[int, int], int] = {}
        self._device = pick_device(device)
        self._channels_last = channels_last
        self._checkpoint = find_checkpoint("big_lama", weights)
        try:
            model = torch.jit.load(self._checkpoint.path, map_location=self._device)
        except RuntimeError as error:
            raise WrongWeights(f"{self._checkpoint.path} is not TorchScript, as big-lama.pt is: {error}") from error
        if len(model.forward.schema.arguments) != len(("self", "image", "mask")):
            raise WrongWeights(f"{self._checkpoint.path} is not LaMa: it does not take an image and a mask.")
        self._model = model.eval()
        self._lay_out(channels_last)

    def fingerprint(self) -> dict[str, object]:
        return {
            "name": "lama",
            "grade": "paper",
            "threshold": self._threshold,
            "modulo": MODULO,
            "weights_sha256": {"big_lama": self._checkpoint.sha256},
        }

    def inpaint(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[InpaintResult]:
        """Fill the holes (``HxW uint8``) of ``HxWx3 uint8`` images. Pixels outside may change a little: composite."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (image, hole) in enumerate(zip(images, holes, strict=True)):
            if image.shape[:2] != hole.shape:
                raise ValueError(f"The image is {image.shape[:2]} and its mask {hole.shape}.")
            groups.setdefault(_padded_size(hole), []).append(index)
        filled: dict[int, np.ndarray] = {}
        for size, indices in groups.items():
            answers = run_in_batches(
                lambda batch: self._fill([images[i] for i in batch], [holes[i] for i in batch]),
                indices,
                min(self._batch.now, self._fitting.get(size, self._batch.now)),
                on_oom=partial(self._fitting.__setitem__, size),
                what="images for LaMa",
            )
            filled.update(zip(indices, answers, strict=True))
        return [InpaintResult(filled[index]) for index in range(len(images))]

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The batch size for images of ``image_size`` (:class:`~generation.tuning.Tunable`)."""
        image, hole = np.zeros((*image_size, 3), np.uint8), np.full(image_size, 255, np.uint8)

        def fill(size: int) -> None:
            self._fill([image] * size, [hole] * size)

        facts = {**self.fingerprint(), "image_size": list(image_size), "dtype": "float32"}
        on_gpu = self._device.type == "cuda"
        return [BatchKnob("inpainter", ("inpaint",), self._batch, on_gpu, facts, fill, self._lay_out)]

    def _lay_out(self, channels_last: bool | None) -> None:
        wanted = self._channels_last if channels_last is None else channels_last
        self._layout = torch.channels_last if wanted else torch.contiguous_format
        self._model.to(memory_format=self._layout)

    @torch.inference_mode()
    def _fill(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[np.ndarray]:
        pixels = self._stack([_pad(image) for image in images]).permute(0, 3, 1, 2).float() / 255
        masks = (self._stack([_pad(hole) for hole in holes])[:, None] > self._threshold).float()
        answer = self._model(pixels.contiguous(memory_format=self._layout), masks)
        if not isinstance(answer, Tensor) or answer.shape != pixels.shape:
            shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise WrongWeights(f"{self._checkpoint.path} is not LaMa: {tuple(pixels.shape)} became {shape}.")
        # Towards zero, not to the nearest, as published.
        whole = (answer * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [one[: hole.shape[0], : hole.shape[1]].copy() for one, hole in zip(whole, holes, strict=True)]

    def _stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        return to_device(torch.from_numpy(np.stack(arrays)), self._device)


def _padded_size(array: np.ndarray) -> tuple[int, int]:
    height, width = array.shape[:2]
    return ceil_modulo(height, MODULO), ceil_modulo(width, MODULO)


def _pad(array: np.ndarray) -> np.ndarray:
    """Mirrored at the right and the bottom to sides divisible by 8."""
    height, width = _padded_size(array)
    rest = ((0, height - array.shape[0]), (0, width - array.shape[1]), (0, 0))
    return np.pad(array, rest[: array.ndim], mode="symmetric")
