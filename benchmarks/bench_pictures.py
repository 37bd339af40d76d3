"""Picture files to vectors against mteb's GME wrapper: ``python benchmarks/bench_pictures.py``.

JPEG files whose sizes are spread as the pictures of UMRB's pools and queries are (counts and mean sizes from the
descriptive statistics that mteb ships), by a random Qwen2-VL, on one thread:

* file to vector: decode, prepare, tower, language part. The wrapper needs transformers < 4.52, whose tower attends over
  all pictures of a batch at once; beside it stands what it would cost with today's, which takes them one by one;
* preparation alone: a decoded picture to patches, against transformers' `Qwen2VLImageProcessorPil`, and what both of
  them spend in Pillow's resize, which must be the same one for the pixels to be equal.

The vectors must agree before a ratio is printed. CPU seconds, the least of interleaved rounds.
"""

from __future__ import annotations

import argparse
import io
import random

import numpy as np
import torch
from PIL import Image
from stock import Stock, random_embedder
from timing import interleaved_minimum

from gme_data.environment import set_default_env
from gme_embedder.processing.picture import patchify, resized, target_sizes

ROUNDS = 3
TOLERANCE = 1e-5
# Pictures in thousands, mean width, mean height.
UMRB = (
    (1025, 396, 265), (540, 396, 265), (376, 336, 285), (335, 327, 298), (321, 329, 295), (200, 257, 491),
    (72, 260, 326), (50, 286, 267), (44, 618, 502), (40, 256, 256), (25, 393, 266), (21, 338, 275), (6, 1740, 2130),
)  # fmt: skip
"""EDIS, VisualNews, WebQA, InfoSeek, OVEN, Fashion200K, FashionIQ, OVEN's queries, EVQA, NIGHTS, VisualNews' queries,
CIRR, ViDoRe."""


def main() -> None:
    """Print a table for each workload."""
    set_default_env()
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    files = jpegs(parser.parse_args().pictures)
    file_to_vector(files)
    preparation(files)


def file_to_vector(files: list[bytes]) -> None:
    plain, half = random_embedder(), random_embedder("bfloat16")
    items = [{"image": file} for file in files]
    ours, theirs = plain.encode(items), Stock(plain).pictures(files)
    for stock in (theirs, Stock(plain, masked=True).pictures(files)):
        difference = float(np.abs(ours - stock).max())
        assert difference < TOLERANCE, f"the vectors differ by {difference}"
    cosine = float((half.encode(items) * ours).sum(1).min())
    assert cosine > 0.999, f"bfloat16 is off: cosine {cosine}"
    tokens = [len(item.ids) for item in plain.preparer.tokenise(items)]
    print(f"{len(files)} JPEG files to vectors: {sum(tokens)} tokens, {np.mean(tokens):.0f} on average")
    report(
        {
            "mteb's GME wrapper": lambda: Stock(plain, masked=True).pictures(files),
            "with today's transformers": lambda: Stock(plain).pictures(files),
            "the same in bfloat16": lambda: Stock(half).pictures(files),
            "Embedder": lambda: plain.encode(items),
            "Embedder, bfloat16": lambda: half.encode(items),
        },
        len(files),
    )


def preparation(files: list[bytes]) -> None:
    embedder = random_embedder()
    config = embedder.settings.inputs.pictures.model_copy(update={"resize": "once"})
    processor = Stock(embedder).processor()
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    print(f"{len(files)} decoded pictures to patches")
    report(
        {
            "Qwen2VLImageProcessorPil": lambda: [processor(images=[image], return_tensors="pt") for image in images],
            "resize of Pillow alone": lambda: [
                image.resize(target_sizes(image.height, image.width, config)[-1][::-1], Image.Resampling.BICUBIC)
                for image in images
            ],
            "Embedder's preparation": lambda: [
                patchify(torch.from_numpy(resized(image, config).copy())[None], config.patch) for image in images
            ],
        },
        len(files),
    )


def report(ways: dict[str, object], count: int) -> None:
    """The last way but one in fp32 is ours; every line says how it compares."""
    seconds = dict(zip(ways, interleaved_minimum(list(ways.values()), ROUNDS), strict=True))
    first = next(iter(seconds.values()))
    for name, spent in seconds.items():
        print(f"  {name:<26} {1000 * spent / count:7.2f} CPU ms each   {first / spent:5.2f}x the first line's speed")


def jpegs(count: int) -> list[bytes]:
    """Smooth random pictures at quality 90, from a fixed seed."""
    draw, noise = random.Random(0), np.random.default_rng(0)  # noqa: S311
    files = []
    for _, width, height in draw.choices(UMRB, [row[0] for row in UMRB], k=count):
        coarse = Image.fromarray(noise.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


if __name__ == "__main__":
    main()
