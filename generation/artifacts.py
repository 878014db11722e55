"""The files of a candidate and the cache of mask proposals, each whole or not there.

A candidate's folder is named by a hash of what its pixels came from, so a rerun finds it again and a
changed parameter makes another one. ``candidate.json`` lists the sha256 of the other files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from db.files import PART_SUFFIX, atomic_write, sync_folder
from generation.protocols import Box, MaskProposal

CANDIDATES = "candidates"
PREVIEWS = "previews"
CACHE = "cache"
MASK_CACHE = f"{CACHE}/masks"
MODEL_CACHE = f"{CACHE}/models"
MANIFEST = "candidate.json"
THUMBNAIL_SIZE = 160
STALE_AFTER_SECONDS = 3600


def pixels_sha256(array: np.ndarray) -> str:
    """Of shape and bytes: equal for equal pixels, whatever file they came from."""
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def encode_png(array: np.ndarray) -> bytes:
    """``HxWx3`` RGB or ``HxW`` grey uint8 as PNG; the same pixels give the same bytes."""
    stored = array[:, :, ::-1] if array.ndim == 3 else array
    done, buffer = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise OSError("OpenCV could not encode a PNG.")
    return buffer.tobytes()


def decode_png(content: bytes) -> np.ndarray:
    """The RGB or grey uint8 pixels of a PNG that :func:`encode_png` made."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image)


def encode_thumbnail(array: np.ndarray) -> bytes:
    """A JPEG no larger than :data:`THUMBNAIL_SIZE` pixels either way."""
    image = Image.fromarray(array)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def candidate_folder(key: str) -> str:
    """Where the candidate of that key lives, relative to the workspace."""
    return f"{CANDIDATES}/{key[:2]}/{key}"


def write_folder(folder: Path, files: Mapping[str, bytes], facts: Mapping[str, object]) -> dict:
    """Write the files and their manifest so that the folder appears complete or not at all.

    ``facts`` are JSON-able and go into the manifest beside the files' sha256. Returns the manifest.
    A folder that is there already with the same manifest is left alone; a damaged one is replaced.
    """
    manifest = {**facts, "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}}
    existing = read_manifest(folder)
    if existing == manifest:
        return manifest
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{PART_SUFFIX}")
    part.mkdir()
    try:
        text = json.dumps(manifest, sort_keys=True, indent=1).encode()
        for name, data in [*files.items(), (MANIFEST, text)]:
            with (part / name).open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        sync_folder(part)
        part.rename(folder)
    except BaseException:  # also a cancel or Ctrl-C: clean up, then let it go on
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return manifest


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a whole folder, or None when it is missing or any file differs from it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for name, sha256 in manifest["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                return None
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, KeyError):
        return None
    return manifest


def remove_stale_parts(root: Path, *, older_than: float = STALE_AFTER_SECONDS) -> int:
    """Delete what a killed run left half-written; recent parts may belong to a run beside this one."""
    limit = time.time() - older_than
    removed = 0
    for part in [*root.glob(f"{CANDIDATES}/*/.*{PART_SUFFIX}"), *root.glob(f"{MASK_CACHE}/*/.*{PART_SUFFIX}")]:
        if part.stat().st_mtime > limit:
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        removed += 1
    return removed


class MaskCache:
    """Mask proposals by key, so that a changed dilation or area limit does not run the masker again."""

    def __init__(self, root: Path) -> None:
        self._root = root / MASK_CACHE

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / f"{key}.npz"

    def load(self, key: str) -> MaskProposal | None:
        """The proposal, or None when there is none or its file is damaged."""
        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                shape = tuple(int(n) for n in stored["shape"])
                bits = np.unpackbits(stored["bits"], count=shape[0] * shape[1])
                boxes = tuple(Box(**box) for box in json.loads(stored["boxes"].tobytes()))
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError):
            return None  # damaged: made again and replaced
        return MaskProposal(bits.reshape(shape) * np.uint8(255), boxes)

    def store(self, key: str, proposal: MaskProposal) -> None:
        boxes = json.dumps([asdict(box) for box in proposal.boxes]).encode()
        buffer = io.BytesIO()
        np.savez(
            buffer,
            shape=np.asarray(proposal.mask.shape),
            bits=np.packbits(proposal.mask != 0),
            boxes=np.frombuffer(boxes, np.uint8),
        )
        atomic_write(self._path(key), buffer.getvalue())
