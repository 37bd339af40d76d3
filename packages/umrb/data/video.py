"""Frames of a video as pictures. GME takes no video: it was scored on the middle frame. Knows bytes only."""

from __future__ import annotations

import io

from PIL import Image

from gme_data.errors import FoundryError


def frames_of(video: bytes, count: int, name: str = "video") -> list[bytes]:
    """`count` frames as PNG, in the middles of as many equal parts of the video; for one, the middle frame.

    Raises:
        FoundryError: No readable video.
    """
    import av

    try:
        with av.open(io.BytesIO(video), mode="r") as container:
            # Decoded once to count: containers lie about the number of their frames.
            total = len([None for _ in container.decode(video=0)])
            wanted = [int((part + 0.5) * total / count) for part in range(count)]
            container.seek(0)
            found = {}
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    buffer = io.BytesIO()
                    Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, format="PNG")
                    found[number] = buffer.getvalue()
        return [found[number] for number in wanted]
    except Exception as error:  # as in `gme_data.images`: a decoder of strangers' bytes may raise anything
        raise FoundryError(f"{name}: not a readable video: {error}") from error
