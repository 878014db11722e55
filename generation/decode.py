"""From a file's bytes, which nobody vouches for, to upright 8-bit RGB.

What a file is, is told by its first bytes and never by its name, and only the six decoders listed
here are ever reached. Size limits are checked from the header, before a pixel is decoded.

Decisions that change pixels:

- transparency (alpha, palette, colour key) is composited on white, as viewers show it;
- 16-bit grey is scaled to 8 bits and not clipped, which is what ``convert`` would do;
- CMYK JPEGs are read with Adobe's inverted polarity and turned to RGB without their ICC profile, and
  RGB profiles are not applied either: the classifiers were trained on photos read this way;
- of an animation or a multi-page file the first frame is taken.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as ExifTag
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

MAX_PIXELS = 64_000_000
MAX_BYTES = 128 * 2**20

NOT_AN_IMAGE = "not_an_image"
TRUNCATED = "truncated"
TOO_MANY_PIXELS = "too_many_pixels"
TOO_MANY_BYTES = "too_many_bytes"
UNSUPPORTED = "unsupported"

_WORKING_SIDE = 224
_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 258, 262, 322, 323
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

# What Pillow's decoders raise on malformed bytes; they have no common class of their own.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
)
# Pillow tells a kind of file it cannot read from a damaged one only in the words of its error.
_UNSUPPORTED_WORDS = ("unsupported", "unknown", "cannot handle", "not available", "not supported", "no support")


class UnreadableImage(ValueError):
    """Bytes that do not become an image. ``code`` is one of this module's five codes; ``message`` a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def decode_rgb(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """The image as mode RGB, upright (EXIF orientation applied) and fully loaded, so safe in any thread.

    Raises :class:`UnreadableImage`; an OSError only where ``source`` is a path that cannot be read.
    """
    image = _open(_content(source, max_bytes), max_pixels)
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise UnreadableImage(TOO_MANY_PIXELS, f"The image declares more pixels than can be read: {error}.") from error
    except _DAMAGE as error:
        raise _damaged(image.format or "image", error) from error
    # A GIF's first frame may enlarge the canvas its header declared.
    _check_pixels(image.size, max_pixels)
    try:
        return _to_rgb(_upright(image))
    except (ValueError, KeyError) as error:
        raise UnreadableImage(UNSUPPORTED, f"{image.format} with samples of kind {image.mode}: {error}.") from error


def image_size(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Width and height of the upright image in pixels, from the header. Raises as :func:`decode_rgb` does.

    A PNG is decoded nevertheless: the chunk with its orientation may come after the pixels.
    """
    image = _open(_content(source, max_bytes), max_pixels)
    # Pillow has already turned the size of a TIFF.
    sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
    return (image.height, image.width) if sideways else image.size


def resize_working(image: Image.Image, resolution: str) -> np.ndarray:
    """The working image of a mode-RGB photo: HxWx3 uint8, writable.

    ``"224"`` squashes to 224x224 with LANCZOS, losing the aspect ratio, as the published sampler does;
    ``"native"`` keeps the photo's own size. Raises ValueError for another resolution or mode.
    """
    if image.mode != "RGB":
        raise ValueError(f"The working image is made from an RGB image, not {image.mode}.")
    if resolution == "224":
        image = image.resize((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.LANCZOS)
    elif resolution != "native":
        raise ValueError(f"resolution must be 224 or native, not {resolution!r}.")
    return np.array(image, dtype=np.uint8)


def _content(source: Path | bytes, max_bytes: int) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as handle:
            content = handle.read(max_bytes + 1)
    else:
        content = source
    if len(content) > max_bytes:
        raise UnreadableImage(TOO_MANY_BYTES, f"The file is larger than {max_bytes} bytes.")
    if not content:
        raise UnreadableImage(NOT_AN_IMAGE, "The file is empty.")
    return content


def _decoder(head: bytes) -> type[ImageFile.ImageFile]:
    """The decoder for a file that starts so. Raises :class:`UnreadableImage` where none is for it."""
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImageFile
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return GifImageFile
    if head[:4] in _TIFF_MAGICS:
        return TiffImageFile
    # "BM" alone is how many a text begins.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return BmpImageFile
    if head[4:8] == b"ftyp" or head.startswith((b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51", b"8BPS", b"\xff\x0a")):
        raise UnreadableImage(
            UNSUPPORTED, "The image is HEIC, AVIF, JPEG 2000, JPEG XL or PSD; convert it to PNG or JPEG."
        )
    raise UnreadableImage(NOT_AN_IMAGE, "The file's content is not JPEG, PNG, BMP, WebP, GIF or TIFF.")


def _open(content: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """The image with its header read and its size within the limit.

    The decoders are called directly and not through ``Image.open``, whose own pixel limit warns, through
    a filter that all threads share, and refuses at sizes that have nothing to do with ours.
    """
    decoder = _decoder(content[:32])
    try:
        image = decoder(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        raise UnreadableImage(TOO_MANY_PIXELS, f"The image declares more pixels than can be read: {error}.") from error
    except _DAMAGE as error:
        raise _damaged(str(decoder.format), error) from error
    _check_pixels(image.size, max_pixels)
    if isinstance(image, TiffImageFile):
        # One tile may be declared far larger than the image, and is what gets allocated.
        width, height = (image.tag_v2.get(tag, 0) for tag in (_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT))
        if isinstance(width, int) and isinstance(height, int):
            _check_pixels((width, height), max_pixels)
    return image


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnreadableImage(
            TOO_MANY_PIXELS, f"The image is {width} x {height} pixels; the limit is {max_pixels} pixels."
        )


def _damaged(kind: str, error: Exception) -> UnreadableImage:
    detail = str(error) or type(error).__name__
    if any(words in detail.lower() for words in _UNSUPPORTED_WORDS):
        return UnreadableImage(UNSUPPORTED, f"A kind of {kind} that cannot be read: {detail}.")
    return UnreadableImage(TRUNCATED, f"The {kind} is cut short or damaged: {detail}.")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTag.Orientation, 1)
    except _DAMAGE:
        # A photo with garbled EXIF is still a photo, and has no orientation to apply.
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Not Pillow's ``exif_transpose``, which also writes the EXIF anew and fails where that is garbled."""
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a loaded image of any mode. Raises ValueError where the samples have no agreed range."""
    if image.mode.startswith("I"):
        image = _grey_to_8_bit(image)
    elif image.mode == "F":
        raise ValueError("floating-point samples have no agreed range")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, colours)
    plain = image.convert("RGB")
    # Metadata left on it would let a later reader turn the image once more.
    plain.info = {}
    return plain


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits a sample, scaled so that full scale becomes 255, rounded to nearest."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = tags.get(_TIFF_BITS, (16,))[0]
    full = 2 ** min(bits, 16) - 1
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > full:
        raise ValueError(f"samples from {samples.min()} to {samples.max()} are not {min(bits, 16)}-bit grey")
    scaled = ((samples * 255 + full // 2) // full).astype(np.uint8)
    # Pillow inverts a white-is-zero TIFF of 8 bits a sample, but not of 16.
    return Image.fromarray(255 - scaled if tags.get(_TIFF_PHOTOMETRIC) == 0 else scaled)
