"""The instruction of each source: put before the query, in training examples and task cards alike."""

from __future__ import annotations

_BY_SOURCE = {
    "place-question": "Retrieve a passage about the place that answers the question.",
    "page-question": "Find a screenshot of a page that is relevant to the user's question.",
    "illustrated-question": "Find an illustrated passage that answers the question.",
    "flag-question": "Retrieve a passage that answers the question about the place whose flag is shown.",
    "flag-question-illustrated": "Retrieve a flag with a passage that answers the question about the image.",
    "pictograph": "Find another drawing of the pictured thing.",
    "flag": "Find another drawing of the same flag.",
    "pictograph-name": "Match the name of a thing with a drawing of it.",
    "flag-description": "Match the description of a flag with a drawing of it.",
    "pictograph-edit": "Retrieve a drawing that is the given drawing changed as the text says.",
    "flag-map": "Retrieve the map that the text asks for, of the place whose flag is shown.",
}
_IMAGINED = ("illustrated-question", "flag-question", "flag-question-illustrated", "flag", "flag-description")

INSTRUCTIONS = {**_BY_SOURCE, **{f"imagined-{source}": _BY_SOURCE[source] for source in _IMAGINED}}
"""Instruction by the name of the source, for queries of any modality."""
