"""What decides a training: every hyper-parameter, at its published value unless the operator says otherwise.

Published: OSPCoOp (CVPR 2025) and its configuration files; LoCoOp (Miyai et al., NeurIPS 2023) for its two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

Objective = Literal["ospcoop", "coop", "locoop"]
Precision = Literal["float32", "bfloat16", "float16"]
Position = Literal["end", "middle", "front"]
Selection = Literal["last", "held_out", "test"]
Storage = Literal["float32", "float16"]

OBJECTIVE_LABELS: dict[str, str] = {"ospcoop": "OSPCoOp", "coop": "CoOp", "locoop": "LoCoOp"}
TRAINED_KINDS: dict[str, tuple[str, ...]] = {
    "ospcoop": ("id", "background", "texture", "id_aug"),
    "coop": ("id",),
    "locoop": ("id",),
}
EPOCHS = 50
EPOCHS_WITH_ID_AUG = 20
OPTION_CHOICES = {
    "objective": get_args(Objective),
    "precision": get_args(Precision),
    "class_position": get_args(Position),
    "selection": get_args(Selection),
    "feature_storage": get_args(Storage),
}


class OptionError(ValueError):
    """A training option that is unknown, of the wrong type or outside its range; the message names it."""


@dataclass(frozen=True)
class TrainingOptions:
    """Hyper-parameters of one run. Shares are 0 to 1; ``object_pixels`` are pixels of one patch of a 224-pixel mask.

    ``loss1`` weighs the local entropy outside the object, ``loss2`` the global entropy of pseudo-OOD images.
    ``locoop_rank`` None is a fifth of the classes: the published 200 of 1,000. ``all_classes`` makes a prompt for
    every class of the class list, not only for those with photos. ``precision`` is the text tower's; context,
    optimiser, logits and losses are float32. ``text_memory`` (MiB) is what the text tower may keep for the way
    back. ``selection`` "held_out" keeps ``held_out_share`` of the photos and of what was made of them out of the
    training and takes the epoch that tells them apart best; "test" takes the best on the OOD test sets, as published.
    ``as_published`` counts the visible share after enlarging and initial words by blanks, as the reference does.
    """

    objective: Objective = "ospcoop"
    epochs: int = EPOCHS
    batch_size: int = 32
    lr: float = 0.002
    warmup_lr: float = 1e-5
    warmup_epochs: int = 1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss1: float = 1.5
    loss2: float = 0.5
    locoop_weight: float = 0.25
    locoop_rank: int | None = None
    n_ctx: int = 16
    init_words: str | None = None
    class_specific: bool = False
    class_position: Position = "end"
    all_classes: bool = False
    min_drop: float = 5.0
    object_pixels: int = 100
    min_visible: float = 0.2
    random_position: bool = False
    selection: Selection = "last"
    held_out_share: float = 0.2
    precision: Precision = "float32"
    feature_storage: Storage = "float32"
    text_memory: int = 2048
    seed: int = 1
    as_published: bool = False

    def __post_init__(self) -> None:
        for name, choices in OPTION_CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "n_ctx", "text_memory"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_lr", "weight_decay", "loss1", "loss2", "locoop_weight", "warmup_epochs", "seed"):
            _require(self, name, getattr(self, name) >= 0, "0 or more")
        _require(self, "lr", self.lr > 0, "above 0")
        _require(self, "locoop_rank", self.locoop_rank is None or self.locoop_rank >= 1, "at least 1")
        for name in ("momentum", "min_visible"):
            _require(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        _require(self, "held_out_share", 0 < self.held_out_share < 1, "above 0 and below 1")
        _require(self, "object_pixels", self.object_pixels >= 0, "0 or more")

    @classmethod
    def from_dict(cls, values: dict) -> TrainingOptions:
        """From JSON. Unknown names and wrong types are refused rather than ignored or converted."""
        known = {field.name: field for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise OptionError(f"Unknown training option: {name}.")
            default = known[name].default
            if not _fits(value, default, str(known[name].type)):
                raise OptionError(f"{name} is a {type(value).__name__}; its default is {default!r}.")
        return cls(**values)

    def as_dict(self) -> dict:
        return asdict(self)


def _fits(value: object, default: object, annotation: str) -> bool:
    if value is None:
        return "None" in annotation
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if default is None:
        return isinstance(value, int if "int" in annotation else str)
    return isinstance(value, type(default))


def _require(options: TrainingOptions, name: str, holds: bool, range_: str) -> None:
    if not holds:
        raise OptionError(f"{name} must be {range_}, not {getattr(options, name)!r}.")


def canonical_hash(value: object) -> str:
    """sha256 of the value's JSON with sorted keys and no blanks."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
