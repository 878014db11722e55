"""The shortcut map: which patches of a background push it towards a class, by zero-shot and trained prompts.

A patch's evidence for class ``c`` is the probability the prompts give it there,

    e_p = softmax_c(s cos(l_p, t_c)),

with the local feature ``l_p`` of the patch, the text features ``t_c`` of all classes and the encoder's own logit scale
``s``. It is the distribution whose entropy the local terms of LoCoOp (NeurIPS 2023) and OSPCoOp (CVPR 2025) raise
outside the object: where training has worked, evidence on backgrounds is lower. All panels of a map show one class on
one colour scale, 0 to the highest evidence of any panel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ospcoop.figures.request import TOP_PATCHES
from ospcoop.prompt_learner import cosine_logits


@dataclass(frozen=True)
class ShortcutPanel:
    """One set of prompts on one image. ``evidence [R][C]`` is 0 to 1, row by row; ``top`` numbers the patches with most
    of it, from 0, row by row, highest first; of equal ones the first.

    ``probability`` is the whole image's for the map's class; ``predicted`` the class (of the prompts) that it is
    taken for, with its own ``predicted_probability``.
    """

    name: str
    evidence: list[list[float]]
    top: list[int]
    probability: float
    predicted: int
    predicted_probability: float


@dataclass(frozen=True)
class ShortcutMap:
    """Panels side by side for one class: ``label`` in ``class_names``. ``highest`` ends the shared colour scale."""

    label: int
    class_names: tuple[str, ...]
    panels: tuple[ShortcutPanel, ...]

    @property
    def highest(self) -> float:
        """The highest evidence in any panel."""
        return max(value for panel in self.panels for row in panel.evidence for value in row)

    def as_dict(self) -> dict:
        """As JSON, with names instead of all classes."""
        panels = [{**asdict(one), "predicted": self.class_names[one.predicted]} for one in self.panels]
        return {"class_name": self.class_names[self.label], "highest": self.highest, "panels": panels}


@torch.no_grad()
def patch_evidence(local: Tensor, text: Tensor, scale: float, label: int) -> Tensor:
    """``e_p [P]`` float32, 0 to 1, of local features ``[P, D]`` and text features ``[C, D]`` of any length."""
    return cosine_logits(local.float(), text.float(), scale).softmax(dim=-1)[:, label]


@torch.no_grad()
def shortcut_map(
    whole: Tensor,
    local: Tensor,
    texts: Mapping[str, Tensor],
    class_names: tuple[str, ...],
    scale: float,
    grid: tuple[int, int],
    *,
    label: int | None = None,
    top: int = TOP_PATCHES,
) -> ShortcutMap:
    """The map of one image: ``whole [D]``, ``local [P, D]`` row by row on a ``grid`` of P patches.

    ``texts`` are the prompts' text features ``[C, D]`` by the panel's name, all over ``class_names``. ``label`` None is
    the class that the first prompts take the image for. ValueError where shapes do not fit.
    """
    rows, columns = grid
    if not texts or local.shape[0] != rows * columns:
        raise ValueError(f"Expected prompts and {rows} x {columns} patches, got {len(texts)} and {local.shape[0]}.")
    for name, text in texts.items():
        if len(text) != len(class_names):
            raise ValueError(f"{name} has {len(text)} prompts for {len(class_names)} classes.")
    if label is None:
        label = int(cosine_logits(whole, next(iter(texts.values())), scale).argmax())
    panels = []
    for name, text in texts.items():
        evidence = patch_evidence(local, text, scale, label)
        order = evidence.argsort(descending=True, stable=True)
        probabilities = cosine_logits(whole.float(), text.float(), scale).softmax(dim=-1)
        predicted = int(probabilities.argmax())
        panels.append(
            ShortcutPanel(
                name,
                evidence.reshape(rows, columns).tolist(),
                order[: min(top, len(order))].tolist(),
                float(probabilities[label]),
                predicted,
                float(probabilities[predicted]),
            )
        )
    return ShortcutMap(label, class_names, tuple(panels))
