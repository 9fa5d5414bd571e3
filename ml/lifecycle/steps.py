"""Named steps of the lifecycle at which a test can kill the process (`include.landing.crash`)."""

from __future__ import annotations

from enum import StrEnum


class LifecycleStep(StrEnum):
    """Steps of a training run, of a change of champion and of scoring, in their order."""

    TRAIN_AFTER_FILE = "train_after_file"
    TRAIN_BEFORE_COMMIT = "train_before_commit"
    CHAMPION_AFTER_CLOSING = "champion_after_closing"
    CHAMPION_BEFORE_COMMIT = "champion_before_commit"
    CHAMPION_BEFORE_ALIAS = "champion_before_alias"
    SCORE_BEFORE_POSITION = "score_before_position"
    SCORE_BEFORE_COMMIT = "score_before_commit"
    SCORE_AFTER_COMMIT = "score_after_commit"
    SCORE_BEFORE_SHADOW = "score_before_shadow"
