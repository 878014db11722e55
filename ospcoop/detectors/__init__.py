"""Every OOD detector by name; a new one is its file and one line here. Higher = more OOD, without exception."""

from __future__ import annotations

from collections.abc import Callable

from ospcoop.detectors.base import Detector, ImageFeatures, Resources
from ospcoop.detectors.mcm import GlMcm, Mcm
from ospcoop.detectors.neglabel import Csp, NegLabel
from ospcoop.detectors.negrefine import NegRefine

DETECTORS: dict[str, Callable[..., Detector]] = {
    Mcm.name: Mcm,
    GlMcm.name: GlMcm,
    NegLabel.name: NegLabel,
    Csp.name: Csp,
    NegRefine.name: NegRefine,
}
"""Name to constructor; each takes :class:`Resources` and its own keyword parameters."""

__all__ = ["DETECTORS", "Detector", "ImageFeatures", "Resources"]
