"""A hit of `gme search`, for its output in the terminal and for its page."""

from __future__ import annotations

from dataclasses import dataclass

from gme_data.tasks import Document


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found.

    Attributes:
        rank: Its rank, from 1.
        score: Cosine similarity to the query.
        document: The document.
        caption: One line for people.
    """

    rank: int
    score: float
    document: Document
    caption: str

    def to_json(self) -> dict[str, object]:
        """Returns the hit as JSON values."""
        return {"rank": self.rank, "score": round(self.score, 6), "id": self.document.id, "caption": self.caption}
