"""A masker that looks at nothing: for benchmarks that time the pipeline alone, and for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from generation.protocols import Box, MaskProposal, MaskRequest


class CentreMasker:
    """Masks the centred rectangle of half the width and half the height: a quarter of the area."""

    def fingerprint(self) -> dict[str, object]:
        return {"name": "noop", "grade": "test"}

    def propose(self, requests: Sequence[MaskRequest]) -> list[MaskProposal]:
        return [self._propose(request) for request in requests]

    def _propose(self, request: MaskRequest) -> MaskProposal:
        height, width = request.image.shape[:2]
        top, left = height // 4, width // 4
        bottom, right = top + height // 2, left + width // 2
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 255
        return MaskProposal(mask, (Box(left, top, right, bottom, request.class_name, 1.0),))
