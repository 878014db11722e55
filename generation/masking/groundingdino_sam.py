"""The paper's masker: GroundingDINO finds the class by its full name, Segment Anything outlines each box.

The published script computes SAM's masks and never writes them, so what becomes of several boxes is not
known. The union of all of them is our reading: whatever may be the object has to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from generation.devices import Precision
from generation.masking.groundingdino import GroundingDinoDetector
from generation.masking.sam import SamSegmenter
from generation.protocols import Box, MaskProposal, MaskRequest
from generation.tuning import BatchKnob


class GroundingDinoSamMasker:
    """A :class:`~generation.protocols.Masker` of two models, both batched. Thread-safe.

    ``detector`` and ``segmenter`` may be given ready-made; otherwise they are loaded from
    ``detector_weights``, ``text_encoder`` and ``sam_weights`` (default: the manifest's) with the published
    thresholds and ``sam_variant`` "vit_h", "vit_l" or "vit_b", on ``device`` in ``precision``; ``channels_last`` is
    theirs and ``compiled`` SAM's. ``detector_only`` leaves SAM out: enough for :meth:`residual_boxes`, while
    :meth:`propose` raises RuntimeError and the fingerprint holds the detector's part alone.
    Raises what :class:`GroundingDinoDetector` and :class:`SamSegmenter` raise.
    """

    def __init__(
        self,
        *,
        detector: GroundingDinoDetector | None = None,
        segmenter: SamSegmenter | None = None,
        detector_weights: Path | str | None = None,
        text_encoder: Path | str | None = None,
        sam_weights: Path | str | None = None,
        sam_variant: str = "vit_h",
        box_threshold: float = 0.3,
        text_threshold: float = 0.25,
        max_boxes: int = 32,
        device: torch.device | str = "auto",
        precision: Precision = "auto",
        compiled: bool = False,
        channels_last: bool = False,
        detector_only: bool = False,
    ) -> None:
        shared = {"device": device, "precision": precision, "channels_last": channels_last}
        self.detector = detector or GroundingDinoDetector(
            detector_weights,
            text_encoder,
            box_threshold=box_threshold,
            text_threshold=text_threshold,
            max_boxes=max_boxes,
            **shared,
        )
        if segmenter is None and not detector_only:
            segmenter = SamSegmenter(sam_weights, variant=sam_variant, compiled=compiled, **shared)
        self.segmenter = segmenter

    def fingerprint(self) -> dict[str, object]:
        segmenter = {} if self.segmenter is None else {"segmenter": self.segmenter.fingerprint()}
        return {
            "name": "groundingdino_sam",
            "grade": "paper",
            "detector": self.detector.fingerprint(),
            **segmenter,
            "boxes_become": "union of masks",
        }

    def batch_knobs(self, image_size: tuple[int, int]) -> list[BatchKnob]:
        """The batch sizes of the models that are loaded (:class:`~generation.tuning.Tunable`)."""
        if self.segmenter is None:
            return [replace(knob, stages=("score",)) for knob in self.detector.batch_knobs(image_size)]
        return [*self.detector.batch_knobs(image_size), *self.segmenter.batch_knobs(image_size)]

    def propose(self, requests: Sequence[MaskRequest]) -> list[MaskProposal]:
        if self.segmenter is None:
            raise RuntimeError("This masker was loaded with detector_only: it makes no masks.")
        boxes = self.detector.detect([r.image for r in requests], [r.class_name for r in requests])
        found = [index for index, some in enumerate(boxes) if some]
        masks = self.segmenter.outline_boxes([requests[i].image for i in found], [_corners(boxes[i]) for i in found])
        outlined = dict(zip(found, masks, strict=True))
        return [
            MaskProposal(outlined[index] if index in outlined else np.zeros(request.image.shape[:2], np.uint8), some)
            for index, (request, some) in enumerate(zip(requests, boxes, strict=True))
        ]

    def residual_boxes(
        self, requests: Sequence[MaskRequest], candidates: Sequence[np.ndarray]
    ) -> list[tuple[Box, ...]]:
        """What the detector still finds of each request's class on its candidate (``HxWx3 uint8``); () is good.

        Only the detector runs. Confidences are most confident first, so the first is the evidence left.
        """
        return self.detector.detect(candidates, [request.class_name for request in requests])


def _corners(boxes: Sequence[Box]) -> np.ndarray:
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes], np.float64)
