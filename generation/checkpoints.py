"""Foreign weights: which file, with what sum, and into the module they are for, or a named error."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from db.files import sha256_file
from generation.weights import WeightsMissing, WrongWeights, locate, weights_sha256

SHOWN_KEYS = 3


@dataclass(frozen=True)
class Checkpoint:
    """A weights file that is there, and its sha256 (64 hexadecimal digits)."""

    path: Path
    sha256: str


def find_checkpoint(name: str, path: Path | str | None = None) -> Checkpoint:
    """The file at ``path``, or else the one the weights manifest calls ``name``.

    Raises WeightsMissing and, for a file of the manifest that is not the right one, WrongWeights.
    """
    if path is None:
        found = locate(name)
        return Checkpoint(found, next(iter(weights_sha256(name).values())))
    path = Path(path)
    if not path.is_file():
        raise WeightsMissing(f"There is no weights file {path} (meant to hold {name}).")
    return Checkpoint(path, sha256_file(path))


def load_into(module: nn.Module, checkpoint: Checkpoint, what: str) -> None:
    """Fill every parameter and buffer of ``module`` from a ``torch.save`` file, without running its pickle.

    The file holds a state dict, bare or under "model"; a leading "module." of data-parallel training is
    dropped, and so are entries that ``module`` has no place for (training leaves some behind). Raises
    WrongWeights, naming the file and ``what`` it should have been, when an entry is missing or misshapen.
    """
    state = _read_state_dict(checkpoint.path, what)
    try:
        missing = module.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise WrongWeights(f"{checkpoint.path} does not fit {what}: {error}") from error
    if missing:
        shown = ", ".join(missing[:SHOWN_KEYS])
        raise WrongWeights(
            f"{checkpoint.path} does not fit {what}: it lacks {len(missing)} of its tensors, among them {shown}."
        )


def _read_state_dict(path: Path, what: str) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise WrongWeights(f"{path} cannot be read as the weights of {what}: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WrongWeights(f"{path} holds no state dict (names to tensors), so it is not the weights of {what}.")
    return {key.removeprefix("module."): value for key, value in loaded.items()}
