"""Every mask, inpaint and score backend by name. A new one is its file and one line here.

Entries hold an import path, not a class: listing them (on the page, in ``--help``) loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

Stage = Literal["masker", "inpainter", "scorer"]


class UnknownBackend(ValueError):
    """A backend name that is not in the registry."""


@dataclass(frozen=True)
class BackendEntry:
    """Where a backend lives, and what the page says of it.

    ``grade`` is "paper" for the published pipeline's own models and "embedded" for the stand-ins that
    run anywhere; "test" entries are hidden from the page. ``keeps_cache`` says that its constructor takes
    ``cache_dir``, a folder where it may keep what is slow to compute; the output does not depend on it.
    ``compiles`` says that it takes ``compiled``, and ``detects_alone`` that it takes ``detector_only``: a masker
    that leaves out what only its masks need, so that its ``residual_boxes`` cost less memory.
    ``parameters`` are passed to the constructor: one class can stand under several names.
    """

    target: str
    label: str
    grade: Literal["paper", "embedded", "test"]
    keeps_cache: bool = False
    compiles: bool = False
    detects_alone: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)

    def load(self, **parameters: object):
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)(**self.parameters, **parameters)


_DINO_SAM = "generation.masking.groundingdino_sam:GroundingDinoSamMasker"
_DINO_SAM_TAKES = {"compiles": True, "detects_alone": True}
_CLIP = "generation.scoring.clip:ClipScorer"
_CLIP_TAKES = {"keeps_cache": True, "compiles": True}

MASKERS: dict[str, BackendEntry] = {
    "embedded_cam": BackendEntry(
        "generation.masking.embedded_cam:EmbeddedCamMasker",
        "Embedded: activation map + GrabCut",
        "embedded",
    ),
    "groundingdino_sam": BackendEntry(
        _DINO_SAM, "GroundingDINO Swin-T + SAM ViT-H (as published)", "paper", **_DINO_SAM_TAKES
    ),
    "groundingdino_sam_l": BackendEntry(
        _DINO_SAM,
        "GroundingDINO Swin-T + SAM ViT-L",
        "paper",
        **_DINO_SAM_TAKES,
        parameters={"sam_variant": "vit_l"},
    ),
    "groundingdino_sam_b": BackendEntry(
        _DINO_SAM,
        "GroundingDINO Swin-T + SAM ViT-B",
        "paper",
        **_DINO_SAM_TAKES,
        parameters={"sam_variant": "vit_b"},
    ),
    "noop": BackendEntry("generation.masking.noop:CentreMasker", "Fixed centre square (benchmarks)", "test"),
}
INPAINTERS: dict[str, BackendEntry] = {
    "patchmatch": BackendEntry(
        "generation.inpainting.patchmatch:PatchMatchInpainter", "Embedded: PatchMatch", "embedded"
    ),
    "telea": BackendEntry("generation.inpainting.telea:TeleaInpainter", "Embedded: OpenCV Telea (fast)", "embedded"),
    "lama": BackendEntry("generation.inpainting.lama:LamaInpainter", "LaMa big-lama (as published)", "paper"),
    "noop": BackendEntry("generation.inpainting.noop:GreyInpainter", "Mean colour (benchmarks)", "test"),
}
SCORERS: dict[str, BackendEntry] = {
    "embedded_dual": BackendEntry(
        "generation.scoring.embedded_dual:EmbeddedDualScorer",
        "Embedded: EfficientNet-Lite0 + MiniLM",
        "embedded",
        keeps_cache=True,
    ),
    "clip": BackendEntry(_CLIP, "CLIP ViT-B/16, OpenAI weights (as published)", "paper", **_CLIP_TAKES),
    "clip_b32": BackendEntry(
        _CLIP, "CLIP ViT-B/32, OpenAI weights", "paper", **_CLIP_TAKES, parameters={"variant": "clip_vit_b_32"}
    ),
    "clip_rn50": BackendEntry(
        _CLIP, "CLIP RN50, OpenAI weights", "paper", **_CLIP_TAKES, parameters={"variant": "clip_rn50"}
    ),
    "noop": BackendEntry("generation.scoring.noop:PixelScorer", "Share of changed pixels (benchmarks)", "test"),
}
REGISTRIES: dict[str, dict[str, BackendEntry]] = {
    "masker": MASKERS,
    "inpainter": INPAINTERS,
    "scorer": SCORERS,
}


def find_backend(stage: Stage, name: str) -> BackendEntry:
    """The entry of that name, or :class:`UnknownBackend` naming the ones there are."""
    try:
        return REGISTRIES[stage][name]
    except KeyError:
        known = ", ".join(sorted(REGISTRIES[stage]))
        raise UnknownBackend(f"There is no {stage} called {name!r}. Choose one of: {known}.") from None


def listed_backends(stage: Stage) -> dict[str, BackendEntry]:
    """The entries a person may choose, in the registry's order."""
    return {name: entry for name, entry in REGISTRIES[stage].items() if entry.grade != "test"}
