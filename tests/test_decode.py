"""What decode_rgb makes of the files that real photo collections hold, and of broken ones."""

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from generation import decode
from generation.decode import UnreadableImage, decode_rgb, image_size, resize_working

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """48x32 with a colour of its own in each quarter: red, green / blue, yellow."""
    image = Image.new("RGB", (48, 32))
    for colour, box in ((RED, (0, 0)), (GREEN, (24, 0)), (BLUE, (0, 16)), (YELLOW, (24, 16))):
        image.paste(colour, (*box, box[0] + 24, box[1] + 16))
    return image


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def quarters(image: Image.Image) -> list[tuple[int, int, int]]:
    """The colours in the middles of the quarters, each channel rounded to 0 or 255."""
    width, height = image.size
    points = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(255 * (value > 127) for value in image.getpixel(point)) for point in points]


def code_of(content: bytes, **limits) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_rgb(content, **limits)
    assert caught.value.message.endswith(".")
    return caught.value.code


def png_with_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be width x height."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_every_accepted_format_is_read_in_its_colours(kind, options):
    image = decode_rgb(encode(corners(), kind, **options))
    assert (image.mode, image.size) == ("RGB", (48, 32))
    assert quarters(image) == [RED, GREEN, BLUE, YELLOW]


def test_content_decides_and_not_the_name(tmp_path: Path):
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(encode(noise(), "PNG"))
    assert np.array_equal(np.asarray(decode_rgb(path)), np.asarray(noise()))
    assert image_size(path) == (40, 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    upright = corners()
    # What a camera held so writes: the inverse of what a viewer applies.
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    undo |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation in undo else upright
    exif = Image.Exif()
    exif[274] = orientation
    content = encode(stored, kind, exif=exif)
    image = decode_rgb(content)
    assert image.size == image_size(content) == (48, 32)
    assert quarters(image) == [RED, GREEN, BLUE, YELLOW]
    assert image.getexif().get(274, 1) == 1


def test_garbled_exif_does_not_cost_the_photo():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert decode_rgb(encode(corners(), "JPEG", exif=exif)).size == (48, 32)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).round().astype(np.uint16)
    shown = np.asarray(decode_rgb(encode(Image.fromarray(values), kind)))
    assert shown.dtype == np.uint8
    assert np.abs(shown[..., 0] - values / 257).max() <= 0.5
    assert np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])


def test_32_bit_integer_grey_that_holds_16_bits_is_scaled():
    values = np.array([[0, 1000], [32768, 65535]], dtype=np.int32)
    assert np.asarray(decode_rgb(encode(Image.fromarray(values), "TIFF")))[..., 0].tolist() == [[0, 4], [128, 255]]
    assert code_of(encode(Image.fromarray(values * 1000), "TIFF")) == decode.UNSUPPORTED


def test_16_bit_colour_png_keeps_its_high_bytes():
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32768, 256) * 4 for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    assert decode_rgb(content).getpixel((1, 1)) == (255, 128, 1)


def test_cmyk_jpeg_with_adobe_marker_is_not_inverted():
    content = encode(corners().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in content
    assert quarters(decode_rgb(content)) == [RED, GREEN, BLUE, YELLOW]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode):
    grey = noise().convert(mode)
    shown = np.asarray(decode_rgb(encode(grey, "PNG")))
    assert np.array_equal(shown, np.repeat(np.asarray(grey.convert("L"))[..., None], 3, axis=2))


def test_palette_and_transparency_come_out_on_white():
    palette = corners().quantize(8)
    assert quarters(decode_rgb(encode(palette, "PNG"))) == [RED, GREEN, BLUE, YELLOW]
    red = palette.getpixel((5, 5))
    assert decode_rgb(encode(palette, "PNG", transparency=red)).getpixel((5, 5)) == (255, 255, 255)
    alphas = bytes(128 if index == red else 255 for index in range(8))
    half = decode_rgb(encode(palette, "PNG", transparency=alphas))
    assert half.getpixel((5, 5)) == (255, 127, 127) and half.getpixel((40, 5)) == GREEN


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(kind):
    image = corners().convert("RGBA")
    image.putalpha(0)
    image.paste((*BLUE, 255), (24, 0, 48, 32))
    shown = decode_rgb(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert shown.getpixel((5, 5)) == (255, 255, 255) and shown.getpixel((40, 20)) == BLUE


def test_colour_key_and_grey_alpha():
    keyed = encode(corners(), "PNG", transparency=RED)
    assert quarters(decode_rgb(keyed)) == [(255, 255, 255), GREEN, BLUE, YELLOW]
    assert decode_rgb(encode(Image.new("LA", (4, 4), (0, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        content = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode_rgb(content).getpixel((3, 3)) == RED


def test_profile_is_not_applied():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert decode_rgb(encode(noise(), "PNG", icc_profile=profile)).tobytes() == noise().tobytes()


def test_floating_point_has_no_agreed_range():
    assert code_of(encode(Image.new("F", (4, 4)), "TIFF")) == decode.UNSUPPORTED


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"not an image\n", b"BMW, a text\n" * 9, b"RIFF____WAVEfmt ", b"%PDF-1.7"]
)
def test_what_is_not_an_image(content):
    assert code_of(content) == decode.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "content",
    [b"\0\0\0\x20ftypheic", b"\0\0\0\x0cjP  \r\n", b"8BPS\0\x01", b"\xff\x0a\xfa\x7f"],
    ids=lambda c: c[:8].hex(),
)
def test_images_of_other_formats_are_named_as_such(content):
    assert code_of(content + bytes(40)) == decode.UNSUPPORTED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_cut_file_is_refused_or_whole(kind):
    """At every cut: named as truncated, or (where only trailing bytes are gone) every pixel is there."""
    content = encode(noise(24, 18), kind)
    whole = decode_rgb(content).tobytes()
    codes = []
    for length in range(len(content)):
        try:
            assert decode_rgb(content[:length]).tobytes() == whole
        except UnreadableImage as error:
            codes.append(error.code)
    assert len(codes) > 0.95 * len(content)
    assert set(codes) <= {decode.TRUNCATED, decode.NOT_AN_IMAGE}
    assert codes.count(decode.NOT_AN_IMAGE) <= 18


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_photo_is_named(share, options):
    content = encode(noise(300, 200), "JPEG", **options)
    assert code_of(content[: int(share * len(content))]) == decode.TRUNCATED


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=5),
    cut=st.floats(0.3, 1),
)
def test_damage_gives_an_rgb_image_or_unreadable_image_and_nothing_else(kind, edits, cut):
    content = bytearray(encode(noise(20, 13), kind))
    for place, value in edits:
        content[int(place * len(content))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            image = decode_rgb(bytes(content[: int(cut * len(content))]))
        except UnreadableImage as error:
            assert error.code in {"not_an_image", "truncated", "too_many_pixels", "unsupported"}
        else:
            assert image.mode == "RGB"


@pytest.mark.parametrize("size", [(60_000, 60_000), (8_001, 8_000), (2**31 - 1, 2**31 - 1)])
def test_the_pixel_limit_holds_before_decoding_and_without_warnings(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert code_of(png_with_header(*size)) == decode.TOO_MANY_PIXELS
        with pytest.raises(UnreadableImage):
            image_size(png_with_header(*size))


def test_the_limits_are_ours_and_inclusive():
    content = encode(noise(40, 30), "PNG")
    assert decode_rgb(content, max_pixels=1200, max_bytes=len(content)).size == (40, 30)
    assert code_of(content, max_pixels=1199) == decode.TOO_MANY_PIXELS
    assert code_of(content, max_bytes=len(content) - 1) == decode.TOO_MANY_BYTES


def test_pillows_own_limit_does_not_speak(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_rgb(encode(noise(), "JPEG")).size == (40, 30)


def test_tiff_tile_bomb():
    """A small TIFF may declare one huge tile, which is what gets allocated."""
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, 65536), (323, 4, 1, 65536), (324, 4, 1, 200), (325, 4, 1, 64)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    content = (b"II*\0" + struct.pack("<I", 8) + directory).ljust(300, b"\0")
    assert code_of(content) == decode.TOO_MANY_PIXELS


def test_a_missing_file_is_an_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        decode_rgb(tmp_path / "gone.JPEG")


def test_result_holds_neither_file_nor_lazy_state():
    content = encode(noise(), "PNG")
    results, expected = [], noise().tobytes()
    image = decode_rgb(content)
    threads = [threading.Thread(target=lambda: results.append(image.tobytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert type(image) is Image.Image and results == [expected] * 4


def test_resize_working():
    image = noise(300, 200)
    small = resize_working(image, "224")
    assert small.dtype == np.uint8 and small.shape == (224, 224, 3) and small.flags.writeable
    assert np.array_equal(small, np.asarray(image.resize((224, 224), Image.Resampling.LANCZOS)))
    assert np.array_equal(resize_working(image, "native"), np.asarray(image))
    exact = noise(224, 224)
    assert np.array_equal(resize_working(exact, "224"), np.asarray(exact))
    with pytest.raises(ValueError, match="resolution"):
        resize_working(image, "256")
    with pytest.raises(ValueError, match="RGB"):
        resize_working(image.convert("L"), "224")
