"""Encoders of pictures that Pillow reads but does not write: strangers' depths, byte orders and transparent colours."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""Colour types of PNG."""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """What Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png(samples: NDArray[np.integer], depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of samples [height, width] or [height, width, channels] with `depth` bits each.

    `chunks` (name, content) stand before the pixels.
    """
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + packed(row, depth, ">") for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def packed(row: NDArray[np.integer], bits: int, order: str) -> bytes:
    """A row of samples, those of less than 8 bits (or of 12) beginning at the highest bit."""
    if bits in (8, 16, 32):
        return row.astype(f"{order}u{bits // 8}").tobytes()
    digits = (row[:, None].astype(np.uint32) >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(digits.astype(np.uint8).ravel()).tobytes()


def tiff(
    samples: NDArray[np.generic],
    bits: int,
    *,
    photometric: int = 1,
    order: str = "<",
    sample_format: int = 1,
    extra: int | None = None,
    tags: Mapping[int, tuple[int, bytes | list[int]]] | None = None,
) -> bytes:
    """An uncompressed TIFF in one strip.

    Args:
        samples: [height, width] or [height, width, channels]; floats if `sample_format` is 3.
        bits: A sample.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK.
        order: Of bytes.
        sample_format: 1 unsigned, 2 signed, 3 float.
        extra: Meaning of the last channel: 0 unspecified, 1 premultiplied alpha, 2 alpha.
        tags: Further tags, or others in place of ours: number -> (type, raw bytes or shorts).
    """
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    rows = samples.reshape(height, -1)
    if sample_format == 1:
        data = b"".join(packed(row, bits, order) for row in rows)
    else:
        data = rows.astype(f"{order}{'if'[sample_format - 2]}{bits // 8}").tobytes()
    short, long = 3, 4
    entries: dict[int, tuple[int, bytes | list[int]]] = {
        256: (short, [width]),
        257: (short, [height]),
        258: (short, [bits] * channels),
        259: (short, [1]),
        262: (short, [photometric]),
        273: (long, [8]),
        277: (short, [channels]),
        278: (short, [height]),
        279: (long, [len(data)]),
        339: (short, [sample_format] * channels),
    }
    if extra is not None:
        entries[338] = (short, [extra])
    entries |= tags or {}
    data += b"\0" * (len(data) % 2)
    where = 8 + len(data)
    after, table = where + 2 + 12 * len(entries) + 4, b""
    overflow = b""
    for number, (kind, values) in sorted(entries.items()):
        letter = "H" if kind == short else "I"
        raw = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{letter}", *values)
        count = len(values)
        if len(raw) > 4:
            offset, overflow = after + len(overflow), overflow + raw + b"\0" * (len(raw) % 2)
            raw = struct.pack(f"{order}I", offset)
        table += struct.pack(f"{order}HHI", number, kind, count) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", where)
    return head + data + struct.pack(f"{order}H", len(entries)) + table + b"\0" * 4 + overflow
