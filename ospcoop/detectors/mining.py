"""From WordNet word files to negative labels: the candidates, and which of them are far enough from the ID classes.

Files are named by WordNet's lexicographer files ("noun.animal.txt", "adj.all.txt"), one word a line, "_" for a
blank. An adjective becomes a phrase with one of CSP's (Chen et al., NeurIPS 2024) superclasses behind it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

EXCLUDED_FILES = frozenset({"noun.person.txt", "noun.quantity.txt", "noun.group.txt", "adj.pert.txt"})
ADJECTIVE_PHRASES = tuple(
    f"{{}} {superclass}"
    for superclass in (
        "environment",
        "space",
        "object",
        "scene",
        "place",
        "item",
        "area",
        "view",
        "thing",
        "pattern",
        "structure",
        "landscape",
        "vista",
        "creature",
    )
)
SHARE = 0.15
QUANTILE = 1.0
SAME_LABEL = 0.95
TOP_POSITIVES = 10
MIN_LETTERS = 3
_QUANTILE_BLOCK = 10_000_000


@dataclass(frozen=True)
class Candidates:
    """Candidate negative labels: nouns and adjective phrases, in the files' order."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]


def read_word_files(folder: Path) -> dict[str, list[str]]:
    """The lines of every ``.txt`` in ``folder``, by file name. UTF-8; OSError as raised."""
    return {path.name: path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("*.txt"))}


def candidate_labels(
    files: Mapping[str, Sequence[str]],
    class_names: Iterable[str],
    *,
    excluded: Iterable[str] = EXCLUDED_FILES,
    phrases: Sequence[str] = ADJECTIVE_PHRASES,
    seed: int = 0,
    as_published: bool = False,
) -> Candidates:
    """The candidates in ``files`` (name to lines), files in the order of their names, each word once.

    Only "noun.*" and "adj.*" files count; excluded files need not exist. Nouns and adjectives equal to a class
    are dropped, whatever their case. ``as_published`` compares nouns only and minds the case, and an adjective
    shadows an equal noun. Each adjective's phrase is drawn from ``phrases`` by ``random.Random(seed)``.
    """
    rng = random.Random(seed)

    def fold(word: str) -> str:
        return word if as_published else word.casefold()

    classes = {fold(name) for name in class_names}
    labels: dict[str, list[str]] = {"noun": [], "adj": []}
    seen: dict[str, set[str]] = {"noun": set(), "adj": set()}
    if as_published:
        seen["noun"] = seen["adj"]
    for name in sorted(set(files) - set(excluded)):
        kind = name.partition(".")[0]
        if kind not in labels:
            continue
        for line in files[name]:
            word = line.strip().replace("_", " ")
            known = fold(word) in seen[kind]
            is_class = fold(word) in classes and (kind == "noun" or not as_published)
            if not word or known or is_class:
                continue
            seen[kind].add(fold(word))
            labels[kind].append(word if kind == "noun" else rng.choice(phrases).format(word))
    return Candidates(tuple(labels["noun"]), tuple(labels["adj"]))


def far_labels(candidates: Tensor, classes: Tensor, *, quantile: float = QUANTILE, share: float = SHARE) -> Tensor:
    """The ``int(share * K)`` candidates farthest from the ID classes, farthest first: int64 indices.

    Unit features ``candidates [K, D]`` and ``classes [C, D]``. A candidate's closeness is the ``quantile`` of
    its cosines to the classes (1 = the nearest class), but 1.0 once any cosine exceeds 0.95: a label that
    *is* a class. Nouns and adjectives are mined apart.
    """
    rows = max(1, _QUANTILE_BLOCK // len(classes))
    parts = [candidates.new_empty(0)]
    for chunk in candidates.split(rows):
        cosine = chunk @ classes.T
        closeness = torch.quantile(cosine, quantile, dim=1)
        parts.append(torch.where(cosine.amax(dim=1) > SAME_LABEL, torch.ones_like(closeness), closeness))
    return torch.cat(parts).argsort(stable=True)[: int(share * len(candidates))]


def clean_words(words: Iterable[str], *, as_published: bool = False) -> list[str]:
    """The usable words, each once, sorted: letters, blanks, "-" and "_" only, at least three characters.

    Any run of white space becomes one blank, the ends are stripped, and a word without a letter is dropped.
    ``as_published`` does neither: words grow together across a removed line break and "---" passes.
    """
    if as_published:
        kept = ("".join(c for c in word if c.isalpha() or c in " -_") for word in words)
        return sorted({word for word in kept if len(word) >= MIN_LETTERS})
    spaced = (re.sub(r"\s+", " ", word) for word in words)
    kept = (re.sub(" +", " ", "".join(c for c in word if c.isalpha() or c in " -_")).strip() for word in spaced)
    return sorted({word for word in kept if len(word) >= MIN_LETTERS and any(c.isalpha() for c in word)})


def top_positives(negatives: Tensor, positives: Tensor, k: int = TOP_POSITIVES) -> Tensor:
    """Of each negative label the ``min(k, C)`` nearest ID classes, nearest first: int64 ``[K, k]``; any length.

    These are the pairs that NegRefine's language model is asked about.
    """
    cosine = F.normalize(negatives, dim=-1) @ F.normalize(positives, dim=-1).T
    return cosine.topk(min(k, len(positives)), dim=1).indices
