"""The vision-language models that training and evaluation run on, by the name of the scorer that uses the same one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ospcoop.clip.protocol import VisionLanguageModel


class UnknownEncoder(ValueError):
    """No encoder has that name; the message names those there are."""


@dataclass(frozen=True)
class EncoderEntry:
    """What the page says of an encoder; ``variant`` is its name in the weights manifest (None: no file is needed)."""

    label: str
    grade: Literal["paper", "embedded"]
    variant: str | None = None


ENCODERS: dict[str, EncoderEntry] = {
    "embedded_dual": EncoderEntry("Embedded: EfficientNet-Lite0 + MiniLM", "embedded"),
    "clip": EncoderEntry("CLIP ViT-B/16, OpenAI weights (as published)", "paper", "clip_vit_b_16"),
    "clip_b32": EncoderEntry("CLIP ViT-B/32, OpenAI weights", "paper", "clip_vit_b_32"),
    "clip_rn50": EncoderEntry("CLIP RN50, OpenAI weights", "paper", "clip_rn50"),
}


def find_encoder(name: str) -> EncoderEntry:
    """Raises :class:`UnknownEncoder`."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise UnknownEncoder(f"There is no encoder called {name!r}. Choose one of: {', '.join(ENCODERS)}.") from None


@lru_cache(maxsize=1)
def load_encoder(
    name: str, weights: str | None = None, *, cache_dir: Path, device: str = "auto"
) -> VisionLanguageModel:
    """The encoder, kept for the process's next job. ``weights`` is a file of one's own instead of the manifest's.

    ``cache_dir`` is where the embedded one keeps its class embeddings. Raises :class:`UnknownEncoder`, and
    WeightsMissing, WrongWeights or DeviceUnavailable of :mod:`generation`; ValueError for weights that the
    embedded encoder cannot take or that are no CLIP's.
    """
    entry = find_encoder(name)
    if entry.variant is None:
        if weights is not None:
            raise ValueError(f"{name} has weights of its own and takes no --weights file.")
        from generation.classes import load_imagenet_classes
        from ospcoop.clip.embedded import EmbeddedDualEncoder

        return EmbeddedDualEncoder(load_imagenet_classes().names, cache_dir=cache_dir)
    from generation.checkpoints import find_checkpoint
    from generation.devices import pick_device
    from ospcoop.clip.openclip import OpenClipModel

    return OpenClipModel.from_file(find_checkpoint(entry.variant, weights).path, device=pick_device(device))
