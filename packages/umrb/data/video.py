"""Frames of a video as pictures. GME takes no video: its authors scored it on the middle frame. Knows bytes only."""

from __future__ import annotations

import io

from PIL import Image

from gme_data.images import encode_png
from gme_data.errors import FoundryError


def frames_of(video: bytes, count: int, name: str = "video") -> list[bytes]:
    """Return `count` frames as PNG, the middle ones of as many equal parts of the video.

    Raises:
        FoundryError: The bytes are no readable video.
    """
    import av

    try:
        with av.open(io.BytesIO(video), mode="r") as container:
            # The video is decoded once to count, since the frame count in a container's header may be wrong.
            total = len([None for _ in container.decode(video=0)])
            selected = [int((part + 0.5) * total / count) for part in range(count)]
            container.seek(0)
            encoded = {}
            for number, frame in enumerate(container.decode(video=0)):
                if number in selected:
                    encoded[number] = encode_png(Image.fromarray(frame.to_ndarray(format="rgb24")))
        return [encoded[number] for number in selected]
    except Exception as error:  # as in `gme_data.images`: a decoder of strangers' bytes may raise anything
        raise FoundryError(f"{name}: not a readable video: {error}") from error
