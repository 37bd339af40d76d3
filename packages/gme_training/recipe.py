"""The recipe of the tiny run: what is trained, in which order and for how long. Chosen on the dev tasks.

A vision tower that starts from nothing learns little when it is thrown into the mixture, so it is staged: the tower
alone against pairs of pictures, then pictures through the language part, then all nine task types.
"""

from __future__ import annotations

from gme_training.config import PhaseConfig, SourceShare, TrainingConfig

LOOK_ALIKES = ("flag", "flag-description", "flag-map", "flag-question", "flag-question-illustrated")


def stage_1_default() -> TrainingConfig:
    """Tower, pictures, then the whole mixture with in-batch negatives."""
    return TrainingConfig(phases=(_tower(), _pictures(), _mixture(80, negatives=0)), mask_same_group=LOOK_ALIKES)


def stage_2_default() -> TrainingConfig:
    """The whole mixture again, with the negatives that the model of stage 1 found hard."""
    return TrainingConfig(phases=(_mixture(100, negatives=1),), mask_same_group=LOOK_ALIKES, seed=18)


def _tower() -> PhaseConfig:
    return PhaseConfig(
        name="tower",
        objective="tower",
        steps=250,
        text_learning_rate=0,
        vision_learning_rate=1e-3,
        mixture=(
            SourceShare(source="pictograph", weight=5, batch_size=128, grouped=0.25, augment=0.6),
            SourceShare(source="flag", weight=1, batch_size=128, grouped=0, augment=0.6),
        ),
    )


def _pictures() -> PhaseConfig:
    return PhaseConfig(
        name="pictures",
        steps=60,
        text_learning_rate=1e-3,
        vision_learning_rate=3e-4,
        mixture=(
            SourceShare(source="pictograph", weight=4, batch_size=128, grouped=0.25, augment=0.5),
            SourceShare(source="pictograph-name", task_type="T->I", weight=3, batch_size=128, grouped=0.5, augment=0.5),
            SourceShare(source="pictograph-edit", weight=2, batch_size=96),
            SourceShare(source="flag", weight=1, batch_size=128, grouped=0, augment=0.5),
            SourceShare(source="flag-description", task_type="T->I", weight=1, batch_size=64, grouped=0, augment=0.5),
        ),
    )


def _mixture(steps: int, *, negatives: int) -> PhaseConfig:
    return PhaseConfig(
        name="mix",
        steps=steps,
        text_learning_rate=7e-4,
        vision_learning_rate=2e-4,
        mixture=(
            SourceShare(source="place-question", weight=30, group_size=16, negatives=negatives),
            SourceShare(source="flag-question", weight=20, group_size=16, negatives=negatives, augment=0.3),
            SourceShare(source="flag-question-illustrated", weight=8, group_size=16, augment=0.3),
            SourceShare(source="illustrated-question", weight=6, group_size=16),
            SourceShare(source="page-question", weight=8, group_size=16),
            SourceShare(source="pictograph", weight=9, batch_size=128, grouped=0.25, negatives=negatives, augment=0.5),
            SourceShare(source="pictograph-name", task_type="T->I", weight=6, batch_size=128, augment=0.5),
            SourceShare(source="pictograph-edit", weight=6, batch_size=96, negatives=negatives),
            SourceShare(source="flag-description", task_type="T->I", weight=2, grouped=0, augment=0.5),
            SourceShare(source="flag-map", weight=2, batch_size=96, grouped=0),
            SourceShare(source="flag", weight=3, batch_size=128, grouped=0, augment=0.5),
        ),
    )
