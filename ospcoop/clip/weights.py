"""Reads CLIP weights from a local file into a plain state dict, without ever running what a pickle says.

Three forms: ``.safetensors``; a ``torch.save`` file (state dict, bare or under ``state_dict``), read with
``weights_only``; and OpenAI's own ``.pt``, a TorchScript archive. The last is a zip whose ``data.pkl`` holds
the module tree; ``torch.jit.load`` would trust it, so it is read here by an unpickler that knows tensors and
inert modules and refuses everything else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The weights in ``path`` by OpenAI key, on the CPU, dtypes as stored.

    A leading ``module.`` (data-parallel training) and OpenAI's three size entries are removed. ValueError,
    naming the file, when it is damaged, holds anything but weights or is of another form; OSError as raised.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif _is_torchscript(path):
        state = _read_torchscript(path)
    else:
        state = _read_torch(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if key not in NOT_WEIGHTS and not key.endswith("attn_mask")}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as weights only: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds no state dict (names to tensors).")
    return loaded


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _Module:
    """A scripted module's attributes; its code is never looked at."""

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()


def _rebuild_parameter(tensor: Tensor, *_: object) -> Tensor:
    return tensor


class _ModuleTreeUnpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}data.pkl"))
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a weights file")
        return known[module, name]

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        try:
            if not members:
                raise ValueError("it has no data.pkl")
            root = _ModuleTreeUnpickler(archive, members[0].removesuffix("data.pkl")).load()
        except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a readable TorchScript archive of weights: {error}") from error
    state: dict[str, Tensor] = {}
    _collect(root, "", state)
    return state


def _collect(module: object, prefix: str, into: dict[str, Tensor]) -> None:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            into[f"{prefix}{name}"] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", into)
