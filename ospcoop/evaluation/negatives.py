"""Negative labels for NegLabel, CSP and NegRefine, from what the user gives.

A *folder* holds WordNet's lexicographer files; the labels far from the ID classes are mined from it. NegLabel takes
adjectives as they are, CSP and NegRefine in a phrase. A *file* with a label a line is used as it is, for lists that
somebody has already mined or filtered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ospcoop.detectors.labels import ADJECTIVE_TEMPLATES, NOUN_TEMPLATES, label_features
from ospcoop.detectors.mining import ADJECTIVE_PHRASES, candidate_labels, far_labels, read_word_files
from ospcoop.detectors.neglabel import GROUPS
from ospcoop.evaluation.request import EvaluationError

CHUNK = 256
Encode = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Negatives:
    """``names`` and unit ``features [K, D]`` of the negative labels, in how many ``groups`` they are compared."""

    names: tuple[str, ...]
    features: Tensor
    groups: int


def labels_sha256(path: Path) -> str:
    """Of all that is read from the folder or file."""
    digest = hashlib.sha256()
    for name, lines in _files(path).items():
        digest.update("\n".join([name, *lines, ""]).encode())
    return digest.hexdigest()


def _files(path: Path) -> dict[str, list[str]]:
    if path.is_dir():
        files = read_word_files(path)
        if not any(name.startswith(("noun.", "adj.")) for name in files):
            raise EvaluationError(f"{path} holds no WordNet file (noun.animal.txt, adj.all.txt, ...).")
        return files
    return {path.name: path.read_text(encoding="utf-8").splitlines()}


def find_negatives(detector: str, path: Path, class_names: Sequence[str], encode: Encode) -> Negatives:
    """The labels that ``detector`` compares with. Raises EvaluationError where none is left, OSError as raised."""
    files = _files(path)
    if path.is_dir():
        phrases = ("{}",) if detector == "neglabel" else ADJECTIVE_PHRASES
        found = candidate_labels(files, class_names, phrases=phrases)
        classes = _features(encode, class_names, NOUN_TEMPLATES)
        parts = [
            _mined(encode, labels, classes, templates)
            for labels, templates in ((found.nouns, NOUN_TEMPLATES), (found.adjectives, ADJECTIVE_TEMPLATES))
        ]
        names = tuple(name for part, _ in parts for name in part)
        features = torch.cat([part for _, part in parts])
    else:
        known = {name.casefold() for name in class_names}
        words = dict.fromkeys(line.strip().replace("_", " ") for line in files[path.name])
        names = tuple(word for word in words if word and word.casefold() not in known)
        features = _features(encode, names, NOUN_TEMPLATES)
    if not names:
        raise EvaluationError(f"{path} gives no negative label; each must be another word than the ID classes.")
    return Negatives(names, features, min(GROUPS, len(names)))


def _mined(
    encode: Encode, labels: Sequence[str], classes: Tensor, templates: Sequence[str]
) -> tuple[tuple[str, ...], Tensor]:
    features = _features(encode, labels, templates)
    chosen = far_labels(features, classes) if len(labels) else torch.empty(0, dtype=torch.int64)
    return tuple(labels[index] for index in chosen.tolist()), features[chosen.to(features.device)]


def _features(encode: Encode, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
    parts = [label_features(encode, labels[at : at + CHUNK], templates) for at in range(0, len(labels), CHUNK)]
    return torch.cat(parts) if parts else encode(["nothing"])[:0]
