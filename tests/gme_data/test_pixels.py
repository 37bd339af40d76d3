"""Every depth, byte order, palette and transparency decodes rightly, from files, from Pillow and from arrays alike."""

from __future__ import annotations

import colorsys
import io
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.encoders import GREY, GREY_ALPHA, INDEXED, RGB, RGB_ALPHA, encoded, png, tiff

from gme_data.errors import FoundryError
from gme_data.images import MAX_SIDE, ImageRecord, array_to_rgb, decode_rgb, load_pixels, open_image, to_rgb

Array = NDArray[Any]
RNG = np.random.default_rng(5)
HEIGHT, WIDTH = 6, 16
BYTES = RNG.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
BYTES[0, :4, 3] = [0, 255, 1, 254]
DEEP = RNG.integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
DEEP[0, :3, 0] = [0, 65535, 256]
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def pixels(image: Image.Image) -> Array:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(levels: Array) -> Array:
    return np.repeat(np.asarray(levels).astype(int)[:, :, None], 3, axis=2)


def on_white(colours: Array, alpha: Array) -> Array:
    share = alpha[:, :, None] / 255
    return np.rint(colours * share + 255 * (1 - share))


def saved_and_opened(image: Image.Image, kind: str, **options: object) -> Iterator[Image.Image]:
    """A picture as it comes from its bytes, and as Pillow opens it for somebody who hands it over."""
    data = encoded(image, kind, **options)
    yield decode_rgb(data)
    opened = Image.open(io.BytesIO(data))
    load_pixels(opened)
    yield to_rgb(opened)
    yield to_rgb(Image.open(io.BytesIO(data)))


def raw(mode: str, array: Array) -> Image.Image:
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())


def with_palette(array: Array, palette: Array, mode: str) -> Image.Image:
    image = raw("P", array)
    image.putpalette(palette.tobytes(), mode)
    return image


def premultiplied(channels: Array) -> Array:
    colours, alpha = channels[:, :, :-1].astype(int), channels[:, :, -1:].astype(int)
    return np.concatenate([colours * alpha // 255, alpha], axis=2).astype(np.uint8)


def lab_to_rgb(lab: Array) -> Array:
    """CIE L*a*b* under D50, as Pillow keeps it, to sRGB, adapted by Bradford."""
    light = lab[:, :, 0] / 255 * 100
    a, b = (lab[:, :, channel].astype(np.int8).astype(float) for channel in (1, 2))
    y = (light + 16) / 116
    t = np.stack([y + a / 500, y, y - b / 200], axis=2)
    xyz = np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29)) * [0.9642, 1, 0.8249]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = xyz @ np.array(matrix).T
    assert linear.min() > -0.001  # colours that a screen can show: the test's own
    assert linear.max() < 1.001
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def lab_picture() -> tuple[Image.Image, Array]:
    light = RNG.integers(110, 180, (HEIGHT, WIDTH))
    ab = RNG.integers(-20, 21, (HEIGHT, WIDTH, 2))
    array = np.concatenate([light[:, :, None], ab], axis=2).astype(np.int8).view(np.uint8)
    return raw("LAB", array), lab_to_rgb(array)


def hsv_truth(array: Array) -> Array:
    flat = [colorsys.hsv_to_rgb(*(pixel / 255)) for pixel in array.reshape(-1, 3)]
    return 255 * np.array(flat).reshape(array.shape)


def ycc_truth(array: Array) -> Array:
    y, blue, red = (array[:, :, channel].astype(float) for channel in range(3))
    blue, red = blue - 128, red - 128
    return np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2).clip(0, 255)


def cmyk_truth(array: Array) -> Array:
    ink = array.astype(float)
    return (255 - ink[:, :, :3]) * (255 - ink[:, :, 3:]) / 255


BITS = BYTES[:, :, 0] > 127
INDEX = BYTES[:, :, 0]
ALPHAS = BYTES[0, :, 3].repeat(16)  # of 256 palette entries
LAB, LAB_RGB = lab_picture()
LA = BYTES[:, :, [0, 3]]
UNIT = (INDEX / np.float32(255)).astype(np.float32)
OPAQUE_ALPHA = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)


def keyed(image: Image.Image, key: object) -> Image.Image:
    image.info["transparency"] = key
    return image


MATRIX: list[tuple[str, Image.Image, Array, tuple[str, ...], float]] = [
    # what, picture, truth, lossless formats that hold it, levels that rounding may differ by
    ("1", Image.fromarray(BITS), grey(BITS * 255), ("PNG", "TIFF", "BMP", "GIF", "WEBP"), 0),
    ("L", raw("L", INDEX), grey(INDEX), ("PNG", "TIFF", "BMP", "GIF", "WEBP"), 0),
    ("LA", raw("LA", LA), on_white(grey(INDEX), LA[:, :, 1]), ("PNG", "TIFF", "WEBP"), 1),
    ("La", raw("La", premultiplied(LA)), on_white(grey(INDEX), LA[:, :, 1]), (), 2),
    ("P", with_palette(INDEX, PALETTE, "RGB"), PALETTE[INDEX], ("PNG", "TIFF", "BMP", "GIF", "WEBP"), 0),
    ("P, RGBA palette", with_palette(INDEX, np.c_[PALETTE, ALPHAS], "RGBA"),
     on_white(PALETTE[INDEX], ALPHAS[INDEX]), ("PNG",), 1),
    ("P, one transparent", keyed(with_palette(INDEX, PALETTE, "RGB"), int(INDEX[2, 2])),
     np.where((INDEX[2, 2] == INDEX)[:, :, None], 255, PALETTE[INDEX]), ("PNG", "GIF"), 0),
    ("P, all alphas", keyed(with_palette(INDEX, PALETTE, "RGB"), ALPHAS.tobytes()),
     on_white(PALETTE[INDEX], ALPHAS[INDEX]), ("PNG",), 1),
    ("L, one transparent", keyed(raw("L", INDEX), int(INDEX[2, 2])),
     grey(np.where(INDEX[2, 2] == INDEX, 255, INDEX)), ("PNG",), 0),
    ("RGB, one transparent", keyed(raw("RGB", BYTES[:, :, :3]), tuple(BYTES[2, 2, :3].tolist())),
     np.where((BYTES[:, :, :3] == BYTES[2, 2, :3]).all(axis=2)[:, :, None], 255, BYTES[:, :, :3]), ("PNG",), 0),
    ("RGB", raw("RGB", BYTES[:, :, :3]), BYTES[:, :, :3], ("PNG", "TIFF", "BMP", "WEBP"), 0),
    ("RGBA", raw("RGBA", BYTES), on_white(BYTES[:, :, :3], BYTES[:, :, 3]), ("PNG", "TIFF", "WEBP"), 1),
    ("RGBa", raw("RGBa", premultiplied(BYTES)), on_white(BYTES[:, :, :3], BYTES[:, :, 3]), (), 2),
    ("RGBX", raw("RGBX", BYTES), BYTES[:, :, :3], ("TIFF",), 0),
    ("CMYK", raw("CMYK", BYTES), cmyk_truth(BYTES), ("TIFF",), 1),
    ("YCbCr", raw("YCbCr", BYTES[:, :, :3]), ycc_truth(BYTES[:, :, :3]), ("TIFF",), 1.5),
    ("LAB", LAB, LAB_RGB, ("TIFF",), 5),
    ("HSV", raw("HSV", BYTES[:, :, :3]), hsv_truth(BYTES[:, :, :3]), (), 3),
    ("I;16", raw("I;16", DEEP[:, :, 0]), grey(DEEP[:, :, 0] // 256), ("PNG", "TIFF"), 0),
    ("I;16L", raw("I;16L", DEEP[:, :, 0]), grey(DEEP[:, :, 0] // 256), (), 0),
    ("I;16B", raw("I;16B", DEEP[:, :, 0].astype(">u2")), grey(DEEP[:, :, 0] // 256), ("PNG", "TIFF"), 0),
    ("I;16N", raw("I;16N", DEEP[:, :, 0]), grey(DEEP[:, :, 0] // 256), (), 0),
    ("I;16, one transparent", keyed(raw("I;16", DEEP[:, :, 0]), int(DEEP[2, 2, 0])),
     grey(np.where(DEEP[:, :, 0] == DEEP[2, 2, 0], 255, DEEP[:, :, 0] // 256)), ("PNG",), 0),
    ("I", raw("I", DEEP[:, :, 0].astype("<i4")), grey(DEEP[:, :, 0] // 256), ("TIFF",), 0),
    ("F, 0 to 1", raw("F", UNIT), grey(INDEX), ("TIFF",), 0),
    ("F, 0 to 255", raw("F", INDEX.astype("<f4")), grey(INDEX), ("TIFF",), 0),
]  # fmt: skip


@pytest.mark.parametrize(("what", "image", "truth", "formats", "near"), MATRIX, ids=[row[0] for row in MATRIX])
def test_every_mode_is_scaled_right_from_pillow_and_from_every_file(
    what: str, image: Image.Image, truth: Array, formats: tuple[str, ...], near: float
) -> None:
    assert np.abs(pixels(to_rgb(image)) - truth).max() <= near
    for kind in formats:
        for decoded in saved_and_opened(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})):
            assert np.abs(pixels(decoded) - truth).max() <= near, kind


def test_modes_are_all_there() -> None:
    assert {image.mode for _, image, *_ in MATRIX} >= set(Image.MODES) - {"PA"}  # which Pillow writes to no file


def test_a_palette_with_an_alpha_channel() -> None:
    image = raw("PA", LA)
    image.putpalette(PALETTE.tobytes())
    truth = on_white(PALETTE[INDEX], LA[:, :, 1])
    assert np.abs(pixels(to_rgb(image)) - truth).max() <= 1
    colour_map: list[int] = (PALETTE.astype(int) * 257).T.ravel().tolist()
    data = tiff(LA, 8, photometric=3, extra=2, tags={320: (3, colour_map)})
    assert open_image(data).mode == "PA"
    assert np.abs(pixels(decode_rgb(data)) - truth).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiff_of_every_depth_and_order(bits: int, white: int, order: str) -> None:
    samples = RNG.integers(0, 2**bits, (HEIGHT, WIDTH))
    samples[0, :2] = [0, 2**bits - 1]
    levels = samples >> bits - 8 if bits > 8 else samples * 255 // (2**bits - 1)
    data = tiff(samples, bits, photometric=1 - white, order=order)
    if (bits, order) == (12, ">") or (bits, white) == (12, 1) or (bits, white, order) == (16, 1, ">"):
        with pytest.raises(FoundryError, match="a TIFF, but unknown pixel mode"):
            decode_rgb(data)
        return
    expected = grey(255 - levels if white else levels)
    assert (pixels(decode_rgb(data)) == expected).all()
    assert (pixels(to_rgb(Image.open(io.BytesIO(data)))) == expected).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_tiff_of_16_bits_and_float_tiff(order: str) -> None:
    colours, alpha = DEEP[:, :, :3] // 256, DEEP[:, :, 3] // 256
    assert (pixels(decode_rgb(tiff(DEEP[:, :, :3], 16, photometric=2, order=order))) == colours).all()
    decoded = pixels(decode_rgb(tiff(DEEP, 16, photometric=2, order=order, extra=2)))
    assert np.abs(decoded - on_white(colours, alpha)).max() <= 1
    assert np.abs(pixels(decode_rgb(tiff(DEEP, 16, photometric=5, order=order))) - cmyk_truth(DEEP // 256)).max() <= 1
    for white in (0, 1):
        data = tiff(UNIT, 32, sample_format=3, order=order, photometric=1 - white)
        assert (pixels(decode_rgb(data)) == grey(255 - INDEX.astype(int) if white else INDEX)).all()


def test_premultiplied_grey_tiff() -> None:
    data = tiff(premultiplied(LA), 8, extra=1)
    assert open_image(data).mode == "La"
    assert np.abs(pixels(decode_rgb(data)) - on_white(grey(INDEX), LA[:, :, 1])).max() <= 2


def test_signed_16_bits_have_no_agreed_white() -> None:
    with pytest.raises(FoundryError, match="signed 16-bit"):
        decode_rgb(tiff(DEEP[:, :, 0] // 2, 16, sample_format=2))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png_hits_its_own_pixels_only(depth: int) -> None:
    samples = RNG.integers(0, 2**depth, (HEIGHT, WIDTH))
    levels = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
    for key in {0, 2**depth - 1, int(samples[1, 1])}:
        data = png(samples, depth, GREY, (b"tRNS", struct.pack(">H", key)))
        truth = grey(np.where(samples == key, 255, levels))
        assert (pixels(decode_rgb(data)) == truth).all()
        opened = Image.open(io.BytesIO(data))
        load_pixels(opened)
        load_pixels(opened)
        assert (pixels(to_rgb(opened)) == truth).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_every_depth_with_their_alphas(depth: int) -> None:
    samples = RNG.integers(0, 2**depth, (HEIGHT, WIDTH))
    palette, alphas = PALETTE[: 2**depth], ALPHAS[: 2**depth]
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", alphas.tobytes())]
    truth = on_white(palette[samples], alphas[samples])
    assert np.abs(pixels(decode_rgb(png(samples, depth, INDEXED, *chunks))) - truth).max() <= 1


@pytest.mark.parametrize(("colour", "channels"), [(RGB, [0, 1, 2]), (GREY_ALPHA, [0, 3]), (RGB_ALPHA, [0, 1, 2, 3])])
def test_png_of_16_bits_a_channel_is_narrowed_to_high_bytes(colour: int, channels: list[int]) -> None:
    data = png(DEEP[:, :, channels], 16, colour)
    high = DEEP // 256
    colours = high[:, :, :3] if len(channels) > 2 else grey(high[:, :, 0])
    truth = on_white(colours, high[:, :, 3]) if 3 in channels else colours
    assert np.abs(pixels(decode_rgb(data)) - truth).max() <= (3 in channels)


def test_a_transparent_colour_of_16_bits_is_refused_by_name() -> None:
    data = png(DEEP[:, :, :3], 16, RGB, (b"tRNS", DEEP[2, 2, :3].astype(">u2").tobytes()))
    opened = Image.open(io.BytesIO(data))
    opened.load()
    for decode in (lambda: decode_rgb(data), lambda: to_rgb(Image.open(io.BytesIO(data))), lambda: to_rgb(opened)):
        with pytest.raises(FoundryError, match="a transparent colour of 16 bits"):
            decode()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (raw("I", np.array([[3, 70_000]], "<i4")), "mode I .32-bit integers. with levels from 3 to 70000"),
        (raw("I", np.array([[-1, 400]], "<i4")), "mode I .* from -1 to 400"),
        (raw("I", np.array([[0, 200]], "<i4")), "mode I .* from 0 to 200"),  # 8 bits, or a dark picture of 16
        (raw("F", np.array([[0, 1.5]], "<f4")), "mode F .* from 0 to 1.5"),
        (raw("F", np.array([[-0.5, 0.5]], "<f4")), "mode F .* from -0.5 to 0.5"),
        (raw("F", np.array([[0, 300]], "<f4")), "mode F .* from 0 to 300"),
        (raw("F", np.array([[0, np.nan]], "<f4")), "mode F .* NaN or infinite"),
        (raw("F", np.array([[0, np.inf]], "<f4")), "mode F .* NaN or infinite"),
        (Image.new("RGB", (0, 5)), "0x5 pixels has nothing to see"),
        (Image.new("L", (1, MAX_SIDE + 1)), "a side may have 65535 at most"),
    ],
)
def test_what_can_not_be_scaled_is_refused_by_name_and_never_clipped(image: Image.Image, message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        to_rgb(image, "scan.tif")
    if image.mode in "IF" and image.height == 1:
        with pytest.raises(FoundryError, match=f"scan.tif: .*{message}"):
            decode_rgb(encoded(image, "TIFF"), "scan.tif")


@pytest.mark.parametrize(
    ("array", "image"),
    [
        (BITS, Image.fromarray(BITS)),
        (INDEX, raw("L", INDEX)),
        (INDEX[:, :, None], raw("L", INDEX)),
        (INDEX[::-1, ::2], raw("L", np.ascontiguousarray(INDEX[::-1, ::2]))),
        (BYTES[:, :, :3], raw("RGB", BYTES[:, :, :3])),
        (BYTES, raw("RGBA", BYTES)),
        (DEEP[:, :, 0], raw("I;16", DEEP[:, :, 0])),
        (DEEP[:, :, 0].astype(">u2"), raw("I;16", DEEP[:, :, 0])),
        (DEEP, raw("RGBA", (DEEP >> 8).astype(np.uint8))),
        (UNIT, raw("F", UNIT)),
        (UNIT.astype(np.float64), raw("L", INDEX)),
        (BYTES / 255, raw("RGBA", BYTES)),
        (INDEX.astype(np.float32), raw("L", INDEX)),
    ],
)  # fmt: skip
def test_an_array_is_read_as_the_picture_of_the_same_pixels(array: Array, image: Image.Image) -> None:
    assert (pixels(array_to_rgb(array)) == pixels(to_rgb(image))).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \[3, 8, 8\]"),
        (np.zeros(8, np.uint8), r"shape \[8\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"shape \[2, 8, 8, 3\]"),
        (np.zeros((8, 8, 3), np.int64), "array of int64"),
        (np.zeros((8, 8), np.uint32), "array of uint32"),
        (np.array([["a"]], object), "array of object"),
        (np.full((8, 8, 3), 1.2), "float64 with levels from 1.2 to 1.2"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.zeros((0, 8, 3), np.uint8), "8x0 pixels has nothing to see"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), "more than the allowed"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: Array, message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        array_to_rgb(array, "an array")


def test_ordinary_pictures_are_as_pillow_converts_them() -> None:
    """Digests of evaluations hang on these bytes."""
    smooth = Image.linear_gradient("L").resize((64, 48))
    photo = Image.merge("RGB", [smooth, smooth.rotate(180), smooth.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    clear = photo.copy()
    clear.putalpha(smooth)
    cases = [(photo, "JPEG"), (photo, "WEBP"), (photo, "PNG"), (photo.convert("CMYK"), "JPEG"), (smooth, "JPEG")]
    cases += [(clear, "PNG"), (clear, "WEBP"), (photo.quantize(), "PNG"), (photo.quantize(), "GIF")]
    for image, kind in cases:
        data = encoded(image, kind)
        plain = Image.open(io.BytesIO(data))
        if plain.mode == "RGBA":
            plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
        assert decode_rgb(data).tobytes() == plain.convert("RGB").tobytes(), (image.mode, kind)


def test_cmyk_jpeg_of_adobe_is_not_a_negative() -> None:
    ink = np.broadcast_to(np.array([200, 30, 10, 20], np.uint8), (32, 32, 4))
    decoded = pixels(decode_rgb(encoded(raw("CMYK", ink), "JPEG", quality=95)))
    assert np.abs(decoded - cmyk_truth(ink)).max() <= 4


def test_the_first_frame_is_taken_and_orientation_is_not_applied() -> None:
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "lime")]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert pixels(decode_rgb(data))[3, 3].tolist() == [255, 0, 0]
    exif = Image.Exif()
    exif[274] = 6
    assert decode_rgb(encoded(frames[0], "JPEG", exif=exif)).size == (16, 8)


def test_a_photo_with_further_views_is_a_jpeg() -> None:
    view = Image.new("RGB", (16, 8), "red")
    data = encoded(view, "MPO", save_all=True, append_images=[view])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert ImageRecord.from_bytes(data, source="phone", licence="CC0-1.0").format == "JPEG"
    assert pixels(decode_rgb(data))[3, 3, 0] > 250


def test_a_picture_whose_file_is_closed_says_so(tmp_path: Path) -> None:
    raw("RGB", BYTES[:, :, :3]).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(FoundryError, match="the picture is damaged"):
        to_rgb(image)


def test_a_text_chunk_that_unpacks_to_megabytes_is_refused() -> None:
    import zlib

    bomb = b"Comment\0\0" + zlib.compress(bytes(8_000_000), 9)
    with pytest.raises(FoundryError, match="not a readable picture"):
        open_image(png(INDEX, 8, GREY, (b"zTXt", bomb)))


DAMAGED_TAGS: list[dict[int, tuple[int, bytes | list[int]]]] = [
    {258: (2, b"8\0")},
    {259: (3, [65000])},
    {256: (2, b"ab\0\0")},
    {273: (2, b"here")},
    {277: (3, [0])},
    {277: (3, [60000])},
    {278: (3, [0])},
    {279: (2, b"many")},
    {317: (2, b"x\0")},
    {322: (3, [0]), 323: (3, [0]), 324: (4, [8])},
    {262: (3, [])},
    {262: (2, b"x\0")},
    {320: (3, [1, 2, 3])},
    {339: (2, b"x\0")},
]


@pytest.mark.parametrize("tags", DAMAGED_TAGS)
def test_a_tiff_with_tags_of_the_wrong_kind_is_refused_or_read(tags: dict[int, tuple[int, bytes | list[int]]]) -> None:
    _decoded_or_refused(tiff(INDEX, 8, tags=tags))


@pytest.mark.parametrize("error", [TypeError, KeyError, struct.error, RecursionError, MemoryError, ZeroDivisionError])
def test_whatever_a_decoder_raises_names_the_picture(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    data = encoded(raw("L", INDEX), "TIFF")
    with monkeypatch.context() as patch, pytest.raises(FoundryError, match=f"scan.tif: .*damaged: .*{error.__name__}"):
        patch.setattr("PIL.ImageFile.ImageFile.load", fail)
        decode_rgb(data, "scan.tif")
    with monkeypatch.context() as patch, pytest.raises(FoundryError, match=f"scan.tif: .*readable.*{error.__name__}"):
        patch.setattr("PIL.Image.open", fail)
        decode_rgb(data, "scan.tif")


def _decoded_or_refused(data: bytes) -> None:
    try:
        image = decode_rgb(data, "mutant")
    except FoundryError as error:
        assert str(error).startswith("mutant: ")
    else:
        assert image.mode == "RGB"


def _samples() -> list[bytes]:
    photo, clear = raw("RGB", BYTES[:, :, :3]), raw("RGBA", BYTES)
    made: list[Callable[[], bytes]] = [
        *(lambda kind=kind: encoded(photo, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")),
        *(lambda how=how: encoded(photo, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "packbits")),
        lambda: encoded(clear, "PNG"),
        lambda: encoded(clear, "WEBP"),
        lambda: encoded(raw("CMYK", BYTES), "JPEG"),
        lambda: encoded(photo, "MPO", save_all=True, append_images=[photo]),
        lambda: encoded(photo, "GIF", save_all=True, append_images=[clear]),
        lambda: encoded(with_palette(INDEX, PALETTE, "RGB"), "PNG"),
        lambda: tiff(DEEP[:, :, 0], 16, order=">"),
        lambda: tiff(INDEX, 12),
        lambda: tiff(UNIT, 32, sample_format=3),
        lambda: tiff(LA, 8, extra=1),
        lambda: png(DEEP[:, :, 0], 16, GREY, (b"tRNS", b"\1\2")),
    ]
    return [make() for make in made]


def _mutant(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or swapped, mostly near the beginning, where headers are."""
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = (
            min(int(chance.paretovariate(0.3)), len(mutant)) - 1
            if chance.random() < 0.5
            else chance.randrange(len(mutant))
        )
        if at < 0 or not mutant:
            continue
        match chance.randrange(4):
            case 0:
                mutant[at] = chance.choice([0, 1, 2, 3, 4, 127, 255, chance.randrange(256)])
            case 1:
                del mutant[at : at + chance.randint(1, 8)]
            case 2:
                mutant[at:at] = mutant[at : at + chance.randint(1, 16)]
            case _:
                mutant[at : at + 4] = struct.pack("<I", chance.choice([0, 1, 2**31, 2**32 - 1]))
        mutant = mutant or bytearray(b"\0")
    return bytes(mutant)


@pytest.mark.parametrize("count", [600, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_refused_or_read_and_nothing_else(count: int) -> None:
    chance, samples = random.Random(11), _samples()
    for _ in range(count):
        _decoded_or_refused(_mutant(chance.choice(samples), chance))
