"""The recipe of the tiny run: what is trained, in which order and for how long. Chosen on the dev tasks.

A vision tower that starts from nothing learns little when it is thrown into the mixture, so it goes first, alone
against pairs of pictures; then all nine task types together.
"""

from __future__ import annotations

from gme_training.config import PhaseConfig, SourceShare, TrainingConfig

LOOK_ALIKES = ("flag", "flag-description", "flag-map", "flag-question", "flag-question-illustrated")
"""Sources about places whose flags can hardly be told apart."""


def stage_1_default() -> TrainingConfig:
    """The tower, then the mixture with in-batch negatives."""
    return TrainingConfig(phases=(_tower(), _mixture(110, 1e-3, 3e-4, mined=False)), mask_same_group=LOOK_ALIKES)


def stage_2_default() -> TrainingConfig:
    """The mixture again, with the negatives that the model of stage 1 found hard."""
    return TrainingConfig(phases=(_mixture(90, 8e-4, 2e-4, mined=True),), mask_same_group=LOOK_ALIKES, seed=18)


def _tower() -> PhaseConfig:
    return PhaseConfig(
        name="tower",
        objective="tower",
        steps=300,
        text_learning_rate=0,
        vision_learning_rate=2e-3,
        mixture=(
            SourceShare(source="pictograph", weight=5, batch_size=128, grouped=0, augment=0.3),
            SourceShare(source="flag", weight=1, batch_size=128, grouped=0, augment=0.3),
        ),
    )


def _mixture(steps: int, text_rate: float, vision_rate: float, *, mined: bool) -> PhaseConfig:
    hard = {"negatives": 1, "only_with_negatives": True} if mined else {}
    pairs = {"batch_size": 128, "grouped": 0, "augment": 0.3}
    mixture = (
        {"source": "place-question", "weight": 22, "group_size": 16, **hard},
        {"source": "flag-question", "weight": 17, "group_size": 16, "augment": 0.2, **hard},
        {"source": "flag-question-illustrated", "weight": 5, "group_size": 16, "augment": 0.2},
        {"source": "illustrated-question", "weight": 4, "group_size": 16},
        {"source": "page-question", "weight": 4, "group_size": 16},
        {"source": "pictograph", "weight": 17, **pairs, **hard},
        {"source": "pictograph-name", "task_type": "T->I", "weight": 12, **pairs},
        {"source": "pictograph-edit", "weight": 9, "batch_size": 96},
        {"source": "flag-description", "task_type": "T->I", "weight": 4, **pairs, "batch_size": 64},
        {"source": "flag-map", "weight": 2, **pairs, "batch_size": 96},
        {"source": "flag", "weight": 4, **pairs},
    )
    return PhaseConfig(
        name="mix",
        steps=steps,
        text_learning_rate=text_rate,
        vision_learning_rate=vision_rate,
        mixture=tuple(SourceShare.model_validate(share) for share in mixture),
    )
