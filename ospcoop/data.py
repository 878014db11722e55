"""What a run is trained on: a few-shot set's photos and what was made of them, as labelled, hashed samples. No torch.

The published rules: a photo with a usable background candidate comes with that candidate's mask; one without
counts as object throughout. Backgrounds and textures are pseudo-OOD, without any object. An id_aug has its photo's
label and mask. Which candidates are usable, and that nothing comes from val photos, is decided in
:mod:`db.training_queries`.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Candidate, ImageClass, SourceImage
from db.training_queries import TrainingCandidate, TrainingData
from db.workspace import Workspace
from ospcoop.images import SIDE, SQUASHED, ImageRef, read_mask, read_result, squash
from ospcoop.options import TRAINED_KINDS, TrainingOptions

OpenPhoto = Callable[[SourceImage], Image.Image]
KINDS = ("id", "background", "texture", "id_aug")


class NoTrainingData(RuntimeError):
    """There is nothing, or not enough, to train on; the message says what to make."""


class Domain(enum.IntEnum):
    """What a sample's mask is: the whole image is object, a file says where it is, or there is no object."""

    WHOLE = 0
    MASKED = 1
    BACKGROUND = 2


@dataclass(frozen=True)
class Sample:
    """One image: ``label`` is the place of its class in the run's class list, or their number for pseudo-OOD."""

    name: str
    kind: str
    class_index: int
    label: int
    domain: Domain
    image: ImageRef
    mask_file: Path | None = None

    def mask(self) -> np.ndarray:
        """224x224 uint8, 255 = object; edges may be grey where the mask was resized."""
        if self.domain is Domain.MASKED:
            return read_mask(self.mask_file)
        return np.full((SIDE, SIDE), 255 if self.domain is Domain.WHOLE else 0, np.uint8)


@dataclass(frozen=True)
class ClassNames:
    """The classes that get a prompt, in the order of the labels."""

    indices: tuple[int, ...]
    wnids: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the lines ``wnid name`` in order: over all classes, the class list's own."""
        lines = "".join(f"{wnid} {name}\n" for wnid, name in zip(self.wnids, self.names, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def facts(self) -> dict:
        """As JSON, for a checkpoint."""
        return {
            "sha256": self.sha256,
            "indices": list(self.indices),
            "wnids": list(self.wnids),
            "names": list(self.names),
        }

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class TrainingSet:
    """Samples to train on and, where asked for, others held out. ``crops``: ID augmentations bring the random crop."""

    classes: ClassNames
    samples: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    crops: bool
    left_out: dict[str, int]
    record: dict

    @property
    def sha256(self) -> str:
        """Of every sample in both parts: kind, class, label, image and mask."""
        lines = [_line(part, sample) for part, samples in self._parts().items() for sample in samples]
        return hashlib.sha256("\n".join([self.classes.sha256, *lines]).encode()).hexdigest()

    def summary(self) -> dict:
        """What goes into a run's ``data``: counts by kind and class, the hashes, what was left out and why."""
        by_class: dict[str, dict[str, int]] = {wnid: {} for wnid in self.classes.wnids}
        wnid_of = dict(zip(self.classes.indices, self.classes.wnids, strict=True))
        for sample in self.samples:
            counts = by_class[wnid_of[sample.class_index]]
            counts[sample.kind] = counts.get(sample.kind, 0) + 1
        return {
            "sha256": self.sha256,
            "class_list_sha256": self.classes.sha256,
            "classes": len(self.classes),
            "kinds": _counts(sample.kind for sample in self.samples),
            "without_mask": sum(sample.domain is Domain.WHOLE for sample in self.samples),
            "held_out": _counts(sample.kind for sample in self.held_out),
            "crops": self.crops,
            "by_class": by_class,
            "left_out": dict(self.left_out),
            "sources": self.record,
        }

    def _parts(self) -> dict[str, tuple[Sample, ...]]:
        return {"train": self.samples, "held out": self.held_out}


def _line(part: str, sample: Sample) -> str:
    mask = sample.mask_file.parent.name if sample.mask_file else sample.domain.name
    return f"{part} {sample.kind} {sample.class_index} {sample.label} {sample.image.key} {mask}"


def _counts(kinds: Iterable[str]) -> dict[str, int]:
    counts = Counter(kinds)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def read_classes(session: Session, indices: Iterable[int] | None = None) -> ClassNames:
    """The classes of these indices, or all, in index order."""
    query = select(ImageClass).order_by(ImageClass.class_index)
    wanted = None if indices is None else set(indices)
    rows = [row for row in session.scalars(query) if wanted is None or row.class_index in wanted]
    columns = zip(*((row.class_index, row.wnid, row.name) for row in rows), strict=True)
    return ClassNames(*columns) if rows else ClassNames((), (), ())


def training_set(
    workspace: Workspace, data: TrainingData, options: TrainingOptions, open_photo: OpenPhoto
) -> TrainingSet:
    """The samples of ``data`` that the objective trains on; nothing is opened. ``open_photo`` decodes a source.

    Raises :class:`NoTrainingData` where a class list would be empty or of one class, or nothing can be held out.
    """
    with workspace.read() as session:
        present = None if options.all_classes else {one.source.class_index for one in data.sources}
        classes = read_classes(session, present)
    if len(classes) < 2:
        raise NoTrainingData(
            f"Few-shot set {data.fewshot_set.id} has photos of {len(classes)} class; at least two are needed."
        )
    maker = _SampleMaker(workspace, classes, open_photo)
    samples = maker.make(data, TRAINED_KINDS[options.objective])
    held_ids: frozenset[int] = frozenset()
    if options.selection == "held_out":
        held_ids = _held_out_sources(data, options)
    kept = tuple(sample for sample, sources in samples if not sources & held_ids)
    # Told apart are photos from backgrounds, whatever the objective is trained on.
    held = tuple(sample for sample, sources in maker.make(data, ("id", "background")) if sources & held_ids)
    crops = any(sample.kind == "id_aug" for sample in kept)
    return TrainingSet(classes, kept, held, crops, data.left_out, data.record())


def _held_out_sources(data: TrainingData, options: TrainingOptions) -> frozenset[int]:
    """Photos with a background, drawn by the seed, so that every class keeps a photo to train on."""
    left = Counter(one.source.class_index for one in data.sources)
    wanted = max(1, round(options.held_out_share * len(data.sources)))
    drawn: set[int] = set()
    candidates = [one for one in data.sources if one.background is not None]
    for one in sorted(candidates, key=lambda o: _draw(options.seed, o.source)):
        if len(drawn) < wanted and left[one.source.class_index] > 1:
            left[one.source.class_index] -= 1
            drawn.add(one.source.id)
    if not drawn:
        raise NoTrainingData(
            "Nothing can be held out: no class has two photos of which one has a usable background. "
            "Take more shots, or keep the last epoch."
        )
    return frozenset(drawn)


def _draw(seed: int, source: SourceImage) -> bytes:
    return hashlib.sha256(f"held out {seed} {source.sha256}".encode()).digest()


@dataclass(frozen=True)
class _SampleMaker:
    """Makes samples, each with the sources it shows; those decide what may not be trained on when one is held out."""

    workspace: Workspace
    classes: ClassNames
    open_photo: OpenPhoto

    def make(self, data: TrainingData, kinds: Sequence[str]) -> list[tuple[Sample, frozenset[int]]]:
        label_of = {index: label for label, index in enumerate(self.classes.indices)}
        masks = {one.source.id: self._file(one.background, "mask.png") for one in data.sources if one.background}
        made: list[tuple[Sample, frozenset[int]]] = []

        def add(kind: str, source: SourceImage, image: ImageRef, others: Iterable[int] = ()) -> None:
            is_ood = kind in ("background", "texture")
            mask = None if is_ood else masks.get(source.id)
            domain = Domain.BACKGROUND if is_ood else Domain.WHOLE if mask is None else Domain.MASKED
            label = len(self.classes) if is_ood else label_of[source.class_index]
            sample = Sample(source.name, kind, source.class_index, label, domain, image, mask)
            made.append((sample, frozenset({source.id, *others})))

        for one in data.sources:
            # A photo shown again for the classes' balance counts as one of the ID augmentations.
            shown = ["id"] + ["id_aug"] * one.repeats
            for kind in (kind for kind in shown if kind in kinds):
                add(kind, one.source, self._photo(one.source))
        rows = {"background": data.backgrounds, "texture": data.textures, "id_aug": data.id_augs}
        for kind, candidates in rows.items():
            for row in candidates if kind in kinds else ():
                add(kind, row.source, self._result(row), [row.ground_source.id] if row.ground_source else [])
        return made

    def _photo(self, source: SourceImage) -> ImageRef:
        return ImageRef(source.sha256, lambda: squash(self.open_photo(source)), SQUASHED)

    def _result(self, row: TrainingCandidate) -> ImageRef:
        one = row.candidate
        path = self._file(one, "result.png")
        variant = "" if (one.width, one.height) == (SIDE, SIDE) else SQUASHED
        return ImageRef(one.result_sha256, lambda: read_result(path), variant)

    def _file(self, candidate: Candidate, name: str) -> Path:
        return self.workspace.path(f"{candidate.folder}/{name}")
