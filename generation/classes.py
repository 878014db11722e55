"""The 1000 ImageNet classes: wnid, index, prompt name. The one place that reads them.

The wnids are timm's ImageNet-1k synset list and the names open_clip's curated ImageNet names; both
are read from the installed packages' files without importing the packages, which would load torch.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path


class ClassListError(RuntimeError):
    """The installed class list is not the one this project was built for."""


class UnknownClass(ValueError):
    """Text that names no class of the list."""


@dataclass(frozen=True)
class ClassList:
    """Classes in index order: ``wnids[i]`` is the WordNet id, ``names[i]`` the words a prompt uses."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]

    @cached_property
    def index_of(self) -> dict[str, int]:
        return {wnid: index for index, wnid in enumerate(self.wnids)}

    @cached_property
    def sha256(self) -> str:
        """Of the lines ``wnid name``, one a class in index order: what runs and builds record."""
        lines = "".join(f"{wnid} {name}\n" for wnid, name in zip(self.wnids, self.names, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.wnids)


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ClassListError(f"The package {package} is not installed; run `uv sync`.")
    return Path(next(iter(spec.submodule_search_locations)))


def _tuple_constant(path: Path, name: str) -> tuple[str, ...]:
    """The literal assigned to ``name`` in a Python file, without running the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    raise ClassListError(f"{path} no longer defines {name}; this project was built against open_clip_torch 3.3.0.")


@lru_cache(maxsize=1)
def load_imagenet_classes() -> ClassList:
    """The ImageNet-1k class list: 1000 distinct wnids in index order with their prompt names."""
    synsets = _package_folder("timm") / "data" / "_info" / "imagenet_synsets.txt"
    wnids = tuple(synsets.read_text(encoding="utf-8").split())
    names = _tuple_constant(_package_folder("open_clip") / "zero_shot_metadata.py", "IMAGENET_CLASSNAMES")
    if len(wnids) != 1000 or len(set(wnids)) != 1000 or len(names) != 1000:
        raise ClassListError(f"Expected 1000 wnids and names, found {len(set(wnids))} and {len(names)}.")
    return ClassList(wnids, names)


def find_classes(text: str) -> list[int]:
    """The indices of classes written as wnids or indices, with commas. :class:`UnknownClass` names a wrong one."""
    known = load_imagenet_classes()
    indices = []
    for word in (part.strip() for part in text.split(",")):
        index = known.index_of.get(word, int(word) if word.isdecimal() else -1)
        if not 0 <= index < len(known):
            raise UnknownClass(f"{word!r} is neither a wnid nor an index from 0 to 999.")
        indices.append(index)
    return indices
