"""What a training run may stop with."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run that cannot start, continue or go on."""


class StoppedError(Exception):
    """The time given is over, or somebody asked to stop: what is done is kept."""
