"""A workspace with everything a training takes, made by backends that cost nothing, and a tiny CLIP to train on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from torch import Tensor

from db.progress import NoProgress
from db.workspace import Workspace
from generation.backends import load_backends
from generation.classes import load_imagenet_classes
from generation.fewshot import sample_fewshot
from generation.pseudo_ood.id_aug_candidates import make_id_augs
from generation.pseudo_ood.id_aug_options import IdAugOptions, OptionPlan
from generation.pseudo_ood.texture_candidates import TextureModels, TextureOptions, make_textures
from generation.sources import open_source
from ospcoop import runs
from ospcoop.clip.embedded import EmbeddedDualEncoder
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.data import TrainingSet
from ospcoop.options import TrainingOptions
from ospcoop.runs import DataChoice, EncoderChoice, Planned
from tests.tiny_models import build_tiny_clip
from tests.train_photos import NOOP, with_train_photos

PHOTOS = 16
CLASSES = 4
TINY = EncoderChoice("clip", "tiny")


def make_material(folder: Path) -> Path:
    """The workspace's folder: sixteen train photos of four classes, eight of them with a usable background and mask."""
    workspace = with_train_photos(folder / "workspace", folder / "photos", count=PHOTOS)
    inner = load_backends(NOOP)
    make_textures(workspace, TextureOptions(), models=TextureModels(inner.inpainter, inner.scorer))
    fewshot = sample_fewshot(workspace, 16, 1)
    make_id_augs(workspace, IdAugOptions(plans=(OptionPlan(1, 0.5),), min_similarity=-1.0), fewshot.set_id)
    workspace.close()
    return workspace.root


@lru_cache(maxsize=1)
def tiny_encoder() -> OpenClipModel:
    """32-pixel images, a 4x4 grid, features of 32."""
    return OpenClipModel(tiny_weights())


def tiny_weights() -> dict[str, Tensor]:
    state = build_tiny_clip().state_dict()
    return {key: value for key, value in state.items() if not key.endswith("attn_mask")}


@lru_cache(maxsize=1)
def embedded_encoder() -> EmbeddedDualEncoder:
    """Made once a test process: its class embeddings take seconds."""
    return EmbeddedDualEncoder(load_imagenet_classes().names)


def chosen(workspace: Workspace, **options: object) -> DataChoice:
    with workspace.read() as session:
        return runs.choose_data(session, **options)


def read_set(workspace: Workspace, options: TrainingOptions, choice: DataChoice | None = None) -> TrainingSet:
    return runs.read_training_set(workspace, choice or chosen(workspace), options, open_source)


def plan(workspace: Workspace, options: TrainingOptions, *, name: str | None = None, **kinds: bool) -> Planned:
    choice = chosen(workspace, **kinds)
    return runs.plan_run(workspace, read_set(workspace, options, choice), choice, TINY, options, name=name)


class Silent(NoProgress):
    """Keeps the lines that a person would have seen."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)
