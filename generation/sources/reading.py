"""A recorded photo, read again: the very bytes that were imported, or an error that names the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from PIL import Image

from db.models import SourceImage
from generation.decode import decode_rgb


class SourceChanged(RuntimeError):
    """A source's file is gone, has other bytes than those imported, or leads out of its root."""


def open_source(row: SourceImage) -> Image.Image:
    """The photo as an upright mode-RGB image, from one read of its file. Safe in any thread; needs no session.

    Raises :class:`SourceChanged`, or :class:`generation.decode.UnreadableImage` where this machine's decoder
    refuses bytes that were readable at import.
    """
    return decode_rgb(read_source(row))


def read_source(row: SourceImage) -> bytes:
    """The photo's file as it was imported, its sha256 checked. Raises :class:`SourceChanged`."""
    path = Path(row.root, row.path)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(row.root)):
        raise SourceChanged(f"{path} now leads out of {row.root}; put the imported file back in its place.")
    try:
        with path.open("rb") as handle:
            # One byte more than was recorded shows growth without reading a file that became huge.
            content = handle.read(row.bytes + 1)
    except OSError as error:
        raise SourceChanged(f"{path} cannot be read ({error.strerror}); put the imported file back.") from error
    if len(content) != row.bytes or hashlib.sha256(content).hexdigest() != row.sha256:
        raise SourceChanged(f"{path} is not the file that was imported as {row.name}; put the original back.")
    return content
