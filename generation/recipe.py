"""A recipe: everything that decides what candidate a source becomes, and its hash.

The operator's choices are a :class:`RecipeOptions`; with the backends' fingerprints (parameters and
sha256 of weights) they make the recipe's config, whose canonical JSON is hashed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

from generation.registry import find_backend

RECIPE_FORMAT = 1


class RecipeError(ValueError):
    """A recipe option outside its range; the message names it."""


@dataclass(frozen=True)
class RecipeOptions:
    """What an operator chooses. Areas are shares of the image, 0 to 1; sizes are pixels.

    ``resolution`` is ``"224"`` (LANCZOS squash, as published) or ``"native"`` (the photo's own size).
    A mask whose cleaned area is below ``min_area`` or above ``max_area`` ends as ``mask_too_small`` or
    ``mask_too_large``, as does one whose dilated area exceeds ``max_dilated_area``.
    """

    masker: str = "embedded_cam"
    inpainter: str = "patchmatch"
    scorer: str = "embedded_dual"
    resolution: Literal["224", "native"] = "224"
    dilation: int = 12
    dilation_shape: Literal["square", "ellipse"] = "square"
    min_component: float = 0.002
    max_components: int = 8
    max_hole: float = 0.01
    min_area: float = 0.005
    max_area: float = 0.9
    max_dilated_area: float = 0.95
    second_look: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resolution not in ("224", "native"):
            raise RecipeError(f"resolution must be 224 or native, not {self.resolution!r}.")
        if self.dilation_shape not in ("square", "ellipse"):
            raise RecipeError(f"dilation_shape must be square or ellipse, not {self.dilation_shape!r}.")
        if not 0 <= self.dilation <= 101:
            raise RecipeError(f"dilation must be 0 to 101 pixels, not {self.dilation}.")
        if not 0 <= self.min_area < self.max_area <= 1:
            raise RecipeError(
                f"min_area and max_area must satisfy 0 <= min < max <= 1, not {self.min_area}, {self.max_area}."
            )
        if not 0 < self.max_dilated_area <= 1:
            raise RecipeError(f"max_dilated_area must be above 0 and at most 1, not {self.max_dilated_area}.")
        for name in ("min_component", "max_hole"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"{name} must be a share from 0 to below 1, not {getattr(self, name)}.")
        if self.max_components < 1:
            raise RecipeError(f"max_components must be at least 1, not {self.max_components}.")

    @classmethod
    def from_dict(cls, values: dict) -> RecipeOptions:
        """From JSON. Unknown names are refused rather than ignored."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise RecipeError(f"Unknown recipe option: {', '.join(sorted(unknown))}.")
        return cls(**values)


EMBEDDED_DEFAULTS = {"dilation": 15, "dilation_shape": "ellipse", "max_dilated_area": 0.9}


def default_options(**given: object) -> RecipeOptions:
    """The given options, the rest at the defaults that suit the masker.

    The published 12x12 square for the paper's own; the embedded masks, softer at the edge, want the larger
    ellipse.
    """
    embedded = find_backend("masker", str(given.get("masker", RecipeOptions.masker))).grade == "embedded"
    return RecipeOptions(**({**EMBEDDED_DEFAULTS, **given} if embedded else given))


def embedded_options() -> RecipeOptions:
    """The recipe that runs anywhere: embedded backends with the defaults that suit them."""
    return default_options()


def recipe_config(options: RecipeOptions, fingerprints: dict[str, dict]) -> dict:
    """The JSON object that is stored and hashed: format, options and each stage's fingerprint."""
    return {"format": RECIPE_FORMAT, "options": asdict(options), "backends": fingerprints}


def canonical_hash(value: object) -> str:
    """sha256 of the value's JSON with sorted keys and no blanks."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
