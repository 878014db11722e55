"""An imported candidate's folder: the archive's image as it is, its photo at the same size, the masks where given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from db.models import SourceImage
from db.workspace import Workspace
from generation.artifacts import (
    candidate_folder,
    decode_png,
    encode_png,
    encode_thumbnail,
    read_manifest,
    write_folder,
)
from generation.decode import UnreadableImage, decode_rgb
from generation.imported.matching import IncomingImage
from generation.masking.postprocess import area_share, perceptual_hash
from generation.protocols import Score
from generation.recipe import canonical_hash
from generation.sources import open_source

MASK_NAMES = ("mask.png", "dilated.png")
ARCHIVED_NAME = "archived.jpg"


class BadImage(ValueError):
    """An image or mask of the archive that cannot be taken; the message names it."""


@dataclass
class Incoming:
    """An image on its way in. ``raw`` and ``result`` are ``HxWx3 uint8``, None once written or found on disk.

    ``files`` are the folder's files but for the manifest; ``facts`` what the manifest keeps.
    """

    image: IncomingImage
    source: SourceImage
    folder: str
    facts: dict
    files: dict[str, bytes] | None = None
    raw: np.ndarray | None = None
    result: np.ndarray | None = None
    result_sha256: str = ""
    score: Score | None = None


def prepare(
    workspace: Workspace,
    recipe_hash: str,
    image: IncomingImage,
    source: SourceImage,
    content: bytes,
    masks: tuple[np.ndarray, np.ndarray] | None,
) -> Incoming:
    """Decode the image and its photo; nothing is written yet. What an earlier run wrote is found again.

    A PNG that is 8-bit RGB stays the very file it is. Anything else is stored as a PNG of the same pixels, with a JPEG
    itself kept beside it. The photo is brought to the image's size by LANCZOS, as the published sampler does.

    Raises :class:`BadImage`, and for the photo :class:`generation.sources.SourceChanged` and UnreadableImage.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    lineage = [source.name, source.sha256, str(image.kind), image.variant, image.version]
    folder = candidate_folder(canonical_hash({"imported": recipe_hash, "lineage": lineage, "sha256": sha256}))
    manifest = read_manifest(workspace.path(folder))
    if manifest is not None and (masks is None or MASK_NAMES[0] in manifest["files"]):
        facts = {name: value for name, value in manifest.items() if name != "files"}
        return Incoming(image, source, folder, facts, result_sha256=manifest["files"]["result.png"])
    result, png = _result(image, content)
    height, width = result.shape[:2]
    files = {"result.png": png, "thumbnail.jpg": encode_thumbnail(result)}
    if png != content and content.startswith(b"\xff\xd8"):
        files[ARCHIVED_NAME] = content
    raw = _photo(source, width, height)
    files["raw.png"] = encode_png(raw)
    facts = {
        "source": source.name,
        "source_sha256": source.sha256,
        "class_index": source.class_index,
        "width": width,
        "height": height,
        "phash": perceptual_hash(result),
        "imported": {"file": image.file, "sha256": sha256, "recorded": dict(image.recorded)},
    }
    if masks is not None:
        _add_masks(image, files, facts, masks)
    result_sha256 = hashlib.sha256(png).hexdigest()
    return Incoming(image, source, folder, facts, files, raw, result, result_sha256)


def write(workspace: Workspace, item: Incoming) -> None:
    """Put a prepared (and scored) image's folder in place, whole or not at all, and let go of its pixels."""
    if item.files is None:
        return
    if item.score is not None:
        item.facts["score"] = {**vars(item.score), "top5": list(item.score.top5)}
    write_folder(workspace.path(item.folder), item.files, item.facts)
    item.files = item.raw = item.result = None


def add_masks(workspace: Workspace, folder: str, image: IncomingImage, masks: tuple[np.ndarray, np.ndarray]) -> dict:
    """Put masks into the folder of a candidate that was imported without them. Gives the two areas."""
    path = workspace.path(folder)
    manifest = read_manifest(path)
    if manifest is None:
        raise BadImage(f"{image.file}: the files of its candidate, {folder}, are damaged; put them back from a copy.")
    files = {name: (path / name).read_bytes() for name in manifest.pop("files")}
    _add_masks(image, files, manifest, masks)
    write_folder(path, files, manifest)
    return manifest["areas"]


def _result(image: IncomingImage, content: bytes) -> tuple[np.ndarray, bytes]:
    try:
        decoded = np.asarray(decode_rgb(content))
    except UnreadableImage as error:
        raise BadImage(f"{image.file}: {error}") from error
    if content.startswith(b"\x89PNG"):
        stored = decode_png(content)
        if stored.dtype == np.uint8 and np.array_equal(stored, decoded):
            return decoded, content
    return decoded, encode_png(decoded)


def _photo(source: SourceImage, width: int, height: int) -> np.ndarray:
    photo = open_source(source)
    if photo.size != (width, height):
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    return np.array(photo, dtype=np.uint8)


def _add_masks(
    image: IncomingImage, files: dict[str, bytes], facts: dict, masks: tuple[np.ndarray, np.ndarray]
) -> None:
    size = (facts["height"], facts["width"])
    if any(mask.shape != size for mask in masks):
        raise BadImage(f"{image.file}: its masks are {masks[0].shape[::-1]}, the image is {size[::-1]}.")
    files.update(zip(MASK_NAMES, map(encode_png, masks), strict=True))
    facts["areas"] = dict(zip(("area", "dilated_area"), map(area_share, masks), strict=True))
