"""The instruction of each source; where a task of Atlas asks for the same, its instruction."""

from __future__ import annotations

from atlas.instructions import INSTRUCTIONS as ATLAS

INSTRUCTIONS = {
    "starter-emoji": ATLAS["pictograph"],
    "starter-icon": ATLAS["pictograph"],
    "starter-flag": ATLAS["flag"],
    "starter-name": ATLAS["pictograph-name"],
    "starter-icon-name": ATLAS["pictograph-name"],
    "starter-photo": "Match the caption of a picture with the picture.",
    "starter-flag-description": ATLAS["flag-description"],
    "starter-place-question": ATLAS["place-question"],
    "starter-flag-question": ATLAS["flag-question"],
    "starter-flag-question-illustrated": ATLAS["flag-question-illustrated"],
    "starter-gloss": "Retrieve a passage about the word that answers the question.",
    "starter-example": "Retrieve the definition of a word that the sentence uses.",
}
"""Instruction by the name of the source."""
