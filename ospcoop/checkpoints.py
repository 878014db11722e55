"""Checkpoints: one a finished epoch, each whole or not there, and the published ones read safely.

``epoch-0007.safetensors`` holds the tensors, ``epoch-0007.json``, written last, what they belong to and their
sha256. Nothing here is a pickle; the published ``.pth.tar`` files are, and are read by torch's weights-only reader.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from db.files import atomic_write, sha256_file

FORMAT = 1
_NAME = re.compile(r"epoch-(\d{4,})\.json")
# What the published trainer saves beside the tensors. Their classes are not looked up: a husk takes their place.
_HUSKS = (
    "torch.optim.sgd.SGD",
    "torch.optim.adam.Adam",
    "torch.optim.adamw.AdamW",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.lr_scheduler.MultiStepLR",
)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or not what it should be; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors after ``epoch`` (from 0), and what they belong to (JSON)."""

    epoch: int
    tensors: dict[str, Tensor]
    facts: dict


def write_checkpoint(folder: Path, epoch: int, tensors: dict[str, Tensor], facts: dict) -> Path:
    """Write the epoch's two files; ``facts`` are JSON-able. The path of the tensors."""
    path = folder / f"epoch-{epoch:04d}.safetensors"
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    atomic_write(path, content)
    described = {"format": FORMAT, "epoch": epoch, "sha256": hashlib.sha256(content).hexdigest(), **facts}
    atomic_write(path.with_suffix(".json"), json.dumps(described, indent=1, sort_keys=True).encode())
    return path


def epochs_in(folder: Path) -> list[int]:
    """The epochs that have a checkpoint, ascending; whether they are whole shows when they are read."""
    found = (_NAME.fullmatch(path.name) for path in folder.glob("epoch-*.json"))
    return sorted(int(match[1]) for match in found if match)


def read_facts(folder: Path, epoch: int) -> dict:
    """What an epoch's checkpoint says of itself. Raises :class:`CheckpointError`."""
    path = folder / f"epoch-{epoch:04d}.json"
    try:
        facts = json.loads(path.read_bytes())
        if facts["format"] > FORMAT:
            raise CheckpointError(f"{path} was written by a newer version; update the code.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint: {error}") from error
    return facts


def read_checkpoint(folder: Path, epoch: int) -> Checkpoint:
    """Raises :class:`CheckpointError` when a file is missing or is not the one that was written."""
    facts = read_facts(folder, epoch)
    path = folder / f"epoch-{epoch:04d}.safetensors"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
            raise CheckpointError(f"{path} is not the file that was written; it has another sha256.")
        return Checkpoint(epoch, load(content), facts)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last whole one, or None. A damaged one is passed over: its epoch is trained again, to the same numbers."""
    for epoch in reversed(epochs_in(folder)):
        try:
            return read_checkpoint(folder, epoch)
        except CheckpointError:
            continue
    return None


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published prompt: ``context [n_ctx, W]`` or ``[C, n_ctx, W]`` float32 after ``epochs`` epochs.

    ``classes`` is the number of prompts it was saved with, None where the file does not say; ``val_result`` the
    metric it was chosen by, None likewise. ``is_best``: the file calls itself the best on the test sets.
    """

    context: Tensor
    epochs: int
    classes: int | None
    val_result: float | None
    is_best: bool
    sha256: str


class _Husk:
    """Stands where a pickle names a class that is not wanted; takes its state and does nothing."""

    def __setstate__(self, state: object) -> None:
        pass


def _plain_dict(factory: object = None) -> dict:
    """In place of ``collections.defaultdict``."""
    return {}


def _allowed_globals() -> list:
    scalar = np._core.multiarray.scalar
    return [
        *((_Husk, name) for name in _HUSKS),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        (_plain_dict, "collections.defaultdict"),
        (dict, "builtins.dict"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
    ]


def read_published(path: Path) -> PublishedCheckpoint:
    """A ``model.pth.tar-50`` or ``model-best.pth.tar`` of CoOp, LoCoOp or OSPCoOp.

    Only tensors, plain values and numpy numbers are taken from the pickle, nothing in it is run; the fixed token
    vectors saved with it are dropped. Raises :class:`CheckpointError`, naming the file.
    """
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own words go on to advise reading the file unsafely.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}, which is no part of a prompt" if asked else "it is no plain data"
        raise CheckpointError(f"{path} is refused: {reason}.") from error
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    state = loaded.get("state_dict") if isinstance(loaded, dict) else None
    context = state.get("ctx") if isinstance(state, dict) else None
    if not isinstance(context, Tensor) or context.ndim not in (2, 3) or not context.is_floating_point():
        raise CheckpointError(f"{path} has no context vectors (state_dict.ctx), so it is no prompt of CoOp's kind.")
    prefix, value = state.get("token_prefix"), loaded.get("val_result")
    classes = len(context) if context.ndim == 3 else len(prefix) if isinstance(prefix, Tensor) else None
    return PublishedCheckpoint(
        context.float(),
        int(loaded.get("epoch") or 0),
        classes,
        None if value is None else float(value),
        "best" in path.name,
        sha256_file(path),
    )
