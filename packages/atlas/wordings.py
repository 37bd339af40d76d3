"""Question templates for each field; train, dev and test word the question differently.

Train templates are frames around several nouns, so that the name of the place occurs at every position. Dev and test
templates are written one by one and share neither a frame nor, as far as English allows, the noun. A *named* template
has the placeholder ``{place}``; a *deictic* one has ``{reference}``, for a phrase such as "this country" that points at
a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["named", "deictic"]

FRAMES = (
    "What {be} the {noun} of {place}?",
    "What {be} {place}'s {noun}?",
    "{place}: {noun}?",
    "Tell me the {noun} of {place}.",
    "For {place}, what {be} the {noun}?",
    "{noun} of {place}",
    "I am looking for the {noun} of {place}.",
    "Can you look up {place} and its {noun}?",
)
"""Frames of train templates; ``{be}`` is "is" or "are", as the noun is singular or plural."""


@dataclass(frozen=True, slots=True)
class Phrasing:
    """The templates of one field.

    Attributes:
        nouns: Nouns for the train frames.
        train: Further train templates.
        dev: Dev templates.
        test: Test templates.
        plural: Whether the nouns are plural.
    """

    nouns: tuple[str, ...]
    train: tuple[str, ...]
    dev: tuple[str, str, str]
    test: tuple[str, str, str]
    plural: bool = False


PHRASINGS = {
    "location": Phrasing(
        ("location", "geographic position"),
        ("Where is {place}?", "Where does {place} lie?"),
        ("In which part of the world is {place}?", "Where can {place} be found?", "Situate {place} for me."),
        (
            "Next to what would I spot {place} on a globe?",
            "Whereabouts is {place} situated?",
            "Point out {place} on Earth.",
        ),
    ),
    "total area": Phrasing(
        ("total area", "land and water area"),
        ("How large is {place}?", "How many square kilometers is {place}?"),
        ("How big is the territory of {place}?", "What surface does {place} cover?", "Size of {place} please"),
        ("How much space does {place} take up?", "{place} extends over how many sq km?", "Give the extent of {place}."),
    ),
    "highest point": Phrasing(
        ("highest point", "highest mountain"),
        ("Which point of {place} is the highest?", "How high does {place} reach?"),
        ("Name the top elevation in {place}.", "Which peak towers over {place}?", "What is the summit of {place}?"),
        (
            "Where in {place} is one farthest above the sea?",
            "Up to what height does {place} rise?",
            "What crowns {place}?",
        ),
    ),
    "coastline": Phrasing(
        ("coastline", "length of coast"),
        ("How long is the coastline of {place}?", "How many kilometers of coast has {place}?"),
        ("How much shore does {place} have?", "How far does the coast of {place} run?", "Sea front of {place}"),
        (
            "Is {place} landlocked, or how long is its seaside?",
            "Measure the beaches of {place}.",
            "How far along the sea does {place} stretch?",
        ),
    ),
    "climate": Phrasing(
        ("climate", "weather"),
        ("What is the climate like in {place}?", "How is the weather in {place}?"),
        (
            "How warm or wet is {place}?",
            "Describe the seasons in {place}.",
            "What weather should a visitor to {place} expect?",
        ),
        (
            "Is it hot or cold in {place}?",
            "What do temperature and rain look like across {place}?",
            "Which clothes suit the conditions in {place}?",
        ),
    ),
    "terrain": Phrasing(
        ("terrain", "landscape"),
        ("What is the terrain of {place} like?", "What kind of land is {place}?"),
        (
            "Is {place} flat or mountainous?",
            "What does the ground look like in {place}?",
            "Describe the relief of {place}.",
        ),
        (
            "What would a hiker walk over in {place}?",
            "Hills, plains or deserts: what shapes {place}?",
            "How is the surface of {place} formed?",
        ),
    ),
    "natural resources": Phrasing(
        ("natural resources", "resources"),
        ("Which natural resources does {place} have?", "What resources are found in {place}?"),
        (
            "Which raw materials come from {place}?",
            "What can be extracted in {place}?",
            "Which riches lie in the soil of {place}?",
        ),
        (
            "What do miners and foresters get out of {place}?",
            "Which minerals or other deposits has {place}?",
            "What has nature endowed {place} with?",
        ),
        plural=True,
    ),
    "natural hazards": Phrasing(
        ("natural hazards", "natural dangers"),
        ("Which natural hazards threaten {place}?", "What hazards does nature bring to {place}?"),
        (
            "Which disasters strike {place}?",
            "What natural threats does {place} face?",
            "Which catastrophes are typical of {place}?",
        ),
        (
            "Do storms, quakes or floods hit {place}?",
            "What might nature destroy in {place}?",
            "Which perils should an insurer of {place} fear?",
        ),
        plural=True,
    ),
    "population": Phrasing(
        ("population", "number of inhabitants"),
        ("How many people live in {place}?", "How populous is {place}?"),
        (
            "How many inhabitants are there in {place}?",
            "Count the people of {place}.",
            "How many residents has {place}?",
        ),
        (
            "How many souls call {place} home?",
            "{place} is home to how many humans?",
            "What did the head count of {place} give?",
        ),
    ),
    "languages": Phrasing(
        ("languages", "spoken languages"),
        ("Which languages are spoken in {place}?", "What do people speak in {place}?"),
        (
            "Which tongues are used in {place}?",
            "In what language do citizens of {place} talk?",
            "What is spoken across {place}?",
        ),
        (
            "What would I have to learn to chat with locals of {place}?",
            "In which words do families of {place} converse?",
            "What are the mother tongues in {place}?",
        ),
        plural=True,
    ),
    "religions": Phrasing(
        ("religions", "religious groups"),
        ("Which religions are there in {place}?", "What do people believe in {place}?"),
        (
            "Which faiths are practiced in {place}?",
            "What churches or beliefs exist in {place}?",
            "To which creeds do people of {place} belong?",
        ),
        (
            "How do the inhabitants of {place} worship?",
            "Are most of {place} Christian, Muslim or something else?",
            "Which God or gods does {place} pray to?",
        ),
        plural=True,
    ),
    "life expectancy": Phrasing(
        ("life expectancy", "expected length of life"),
        ("How long do people live in {place}?", "What age do people reach in {place}?"),
        (
            "How old does one get in {place}?",
            "What lifespan is usual in {place}?",
            "Years a newborn of {place} can expect",
        ),
        (
            "At what age do inhabitants of {place} die on average?",
            "How many birthdays will a baby from {place} celebrate?",
            "How long is a life in {place}?",
        ),
    ),
    "industries": Phrasing(
        ("industries", "main industries"),
        ("Which industries does {place} have?", "What does industry make in {place}?"),
        (
            "What do the factories of {place} produce?",
            "Which sectors drive {place}?",
            "What is manufactured in {place}?",
        ),
        (
            "In which businesses do workers of {place} earn a living?",
            "What do firms in {place} do?",
            "Which branches keep {place} busy?",
        ),
        plural=True,
    ),
    "agricultural products": Phrasing(
        ("agricultural products", "farm products"),
        ("Which agricultural products come from {place}?", "What do farmers grow in {place}?"),
        (
            "Which crops does {place} harvest?",
            "What is cultivated in {place}?",
            "What do fields and herds of {place} yield?",
        ),
        (
            "What food is raised on the land of {place}?",
            "Which plants and animals feed {place}?",
            "What would I see on a farm in {place}?",
        ),
        plural=True,
    ),
    "export partners": Phrasing(
        ("export partners", "export destinations"),
        ("Which countries are the export partners of {place}?", "Where do the exports of {place} go?"),
        ("To whom does {place} sell?", "Which countries buy from {place}?", "Who are the customers of {place}?"),
        (
            "Who imports what {place} ships abroad?",
            "Which markets receive the goods of {place}?",
            "With whom does {place} trade most as a seller?",
        ),
        plural=True,
    ),
    "currency": Phrasing(
        ("currency", "money"),
        ("Which currency is used in {place}?", "What money is used in {place}?"),
        (
            "With what does one pay in {place}?",
            "What is legal tender in {place}?",
            "Which coins and notes circulate in {place}?",
        ),
        (
            "What should I have in my wallet in {place}?",
            "Into what would I exchange dollars for a trip to {place}?",
            "In which unit are prices given in {place}?",
        ),
    ),
    "capital": Phrasing(
        ("capital", "capital city"),
        ("Which city is the capital of {place}?", "What city is {place} governed from?"),
        (
            "Where is the seat of government of {place}?",
            "Which town heads {place}?",
            "In which city do ministers of {place} work?",
        ),
        (
            "From where is {place} administered?",
            "Which city would an ambassador to {place} move to?",
            "Where does the leadership of {place} reside?",
        ),
    ),
    "government type": Phrasing(
        ("government type", "form of government"),
        ("What type of government does {place} have?", "How is {place} governed?"),
        ("Is {place} a monarchy or a republic?", "Which political system has {place}?", "What regime rules {place}?"),
        (
            "By what kind of state are the people of {place} ruled?",
            "How is power organized in {place}?",
            "Does {place} have a king, a president or neither?",
        ),
    ),
    "legislature": Phrasing(
        ("legislature", "legislative body"),
        ("What is the legislature of {place} called?", "Which body makes the laws of {place}?"),
        (
            "What is the name of the parliament of {place}?",
            "Who passes bills in {place}?",
            "Which assembly sits in {place}?",
        ),
        (
            "Where do the elected deputies of {place} vote?",
            "What do lawmakers of {place} call their chamber?",
            "Which house debates the statutes of {place}?",
        ),
    ),
    "national symbol": Phrasing(
        ("national symbol", "national emblem"),
        ("Which symbol stands for {place}?", "What animal or plant is the symbol of {place}?"),
        (
            "What represents {place} as its emblem?",
            "Which creature or thing symbolizes {place}?",
            "What stands for the nation of {place}?",
        ),
        (
            "By what heraldic beast or object is {place} known?",
            "What would one carve to signify {place}?",
            "Which mascot has {place}?",
        ),
    ),
    "national colors": Phrasing(
        ("national colors", "colors of the nation"),
        ("Which colors are the national colors of {place}?", "What colors does {place} use?"),
        (
            "In which colors do teams of {place} play?",
            "Which hues represent {place}?",
            "What tints are official in {place}?",
        ),
        (
            "How would a fan of {place} paint the face?",
            "Which shades does {place} identify with?",
            "What palette belongs to {place}?",
        ),
        plural=True,
    ),
    "national anthem": Phrasing(
        ("national anthem", "anthem"),
        ("What is the anthem of {place} called?", "Which song is the national anthem of {place}?"),
        (
            "What do people of {place} sing on state occasions?",
            "Name the hymn of {place}.",
            "Which hymn honors {place}?",
        ),
        (
            "Which music is played when an athlete from {place} wins gold?",
            "What tune is {place} greeted with?",
            "To which melody does {place} stand up?",
        ),
    ),
    "national holiday": Phrasing(
        ("national holiday", "national day"),
        ("When is the national holiday of {place}?", "Which day is the national day of {place}?"),
        (
            "When does {place} celebrate itself?",
            "On what date does {place} have its festival of state?",
            "Which public feast does {place} hold?",
        ),
        (
            "When are there parades and fireworks in {place}?",
            "On which day does everyone in {place} stay home to honor the nation?",
            "What anniversary does {place} commemorate?",
        ),
    ),
}

REFERENCES = {
    "train": ("this country", "this place", "the country with this flag", "the pictured country"),
    "dev": ("the nation shown here", "the place in the picture"),
    "test": ("the land under this banner", "the state this image belongs to"),
}
"""Phrases for the placeholder ``{reference}``, by split."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A question template, which is one row of ``wordings.parquet``."""

    field: str
    split: str
    kind: Kind
    template: str


def all_wordings() -> list[Wording]:
    """Returns every wording of every field: named and deictic, of the three splits."""
    return [
        wording
        for field, phrasing in PHRASINGS.items()
        for split, templates in _by_split(phrasing).items()
        for template in templates
        for wording in _kinds(field, split, template)
    ]


def _by_split(phrasing: Phrasing) -> dict[str, tuple[str, ...]]:
    be = "are" if phrasing.plural else "is"
    framed = tuple(frame.replace("{be}", be).replace("{noun}", noun) for noun in phrasing.nouns for frame in FRAMES)
    train = tuple(template[0].upper() + template[1:] for template in (*phrasing.train, *framed))
    return {"train": train, "dev": phrasing.dev, "test": phrasing.test}


def _kinds(field: str, split: str, template: str) -> list[Wording]:
    named = Wording(field, split, "named", template)
    if template.startswith("{place}"):
        return [named]  # "this country" would begin the sentence in lower case
    return [named, Wording(field, split, "deictic", template.replace("{place}", "{reference}"))]
