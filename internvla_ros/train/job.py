"""One call of `internvla train`: its data, and the stages that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.normalisation import DatasetStatistics, dataset_statistics
from internvla_ros.data.snapshots import read_snapshots
from internvla_ros.model.nano import IMAGE_SIZE
from internvla_ros.model.policy import Policy
from internvla_ros.train.conversations import Mixture, Source
from internvla_ros.train.frames import EpisodeFrames, load_frames
from internvla_ros.train.loop import STATE_FILE, TrainingError
from internvla_ros.train.recipe import Recipe
from internvla_ros.train.sources import (
    EpisodeSource,
    LlavaSource,
    SnapshotSource,
    object_names,
    template_phrases,
)
from internvla_ros.train.stages import Run, adopt_actor, new_policy, stage_one, stage_two

LLAVA_WEIGHT = 0.2
"""Of a LLaVA-style file, beside all the rest."""


@dataclass(frozen=True)
class Options:
    """What a user may set beside the recipe."""

    data: Path
    out: Path
    resume: bool = False
    steps: int | None = None
    episodes: int | None = None
    llava: Path | None = None
    unnorm_key: str = "widowx_250s_tabletop"
    threads: int = 0


class Job:
    """The data of one call, read once, and the stages on it, each in a folder of its name."""

    def __init__(self, recipe: Recipe, options: Options, stages: Sequence[str]) -> None:
        if options.steps is not None and len(stages) > 1:
            raise TrainingError("--steps needs one --stage")
        self.options = options
        self.recipe = recipe
        self.stages = stages
        self.root = options.data
        self.cameras = ("front", "wrist") if "stage2" in stages else ("front",)
        self._frames: EpisodeFrames | None = None
        self._source: Source | None = None

    def run(self) -> None:
        """Run the stages in their order."""
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        for stage in self.stages:
            folder = self.options.out / stage
            if not self.options.resume and (folder / STATE_FILE).exists():
                raise TrainingError(
                    f"{folder} holds a run already; add --resume or choose another --out"
                )
            run = Run(folder, self.options.resume, self.options.steps)
            {"stage1": self.stage1, "actor": self.actor, "stage2": self.stage2}[stage](run)
            print(f"{stage}: checkpoint in {run.checkpoint}")

    def stage1(self, run: Run) -> None:
        """Grounding from scratch (or from where it stopped)."""
        policy = self._policy(self.options.out / "stage1" / "checkpoint") if run.resume else None
        if policy is None:
            statistics = {self.options.unnorm_key: self._statistics()}
            policy = new_policy(
                self.source, template_phrases(), statistics, self.recipe.stage1.loop.seed
            )
        stage_one(policy, self.recipe.stage1, self.source, object_names(), run)

    def actor(self, run: Run) -> None:
        """The actor on points and state alone."""
        policy, recipe = self._needed("stage1"), self.recipe
        blind = load_frames(self.root, (), 0, self._episodes)
        stage_two(policy, recipe.actor, blind, None, run, recipe.stage1.coordinate_sigma)

    def stage2(self, run: Run) -> None:
        """Everything together, from the results of the two before."""
        policy = self._needed("stage1")
        warm = self.options.out / "actor" / "checkpoint"
        if warm.is_dir():
            adopt_actor(policy, warm)
        recipe = self.recipe
        stage_two(
            policy, recipe.stage2, self.frames, self.source, run, recipe.stage1.coordinate_sigma
        )

    def _needed(self, stage: str) -> Policy:
        policy = self._policy(self.options.out / stage / "checkpoint")
        if policy is None:
            raise TrainingError(
                f"{self.options.out} has no checkpoint of {stage} yet; run --stage {stage} first"
            )
        return policy

    @staticmethod
    def _policy(folder: Path) -> Policy | None:
        return Policy.from_pretrained(folder) if folder.is_dir() else None

    def _statistics(self) -> DatasetStatistics:
        return dataset_statistics(LeRobotDataset(self.root), self._episodes)

    @property
    def _episodes(self) -> range | None:
        return None if self.options.episodes is None else range(self.options.episodes)

    @property
    def frames(self) -> EpisodeFrames:
        """All frames of the data set, decoded at the first use."""
        if self._frames is None:
            self._frames = load_frames(self.root, self.cameras, IMAGE_SIZE, self._episodes)
        return self._frames

    @property
    def source(self) -> Source:
        """The mixture of conversations."""
        if self._source is None:
            size, share = (IMAGE_SIZE, IMAGE_SIZE), self.recipe.stage1.episode_weight
            parts: list[tuple[Source, float]] = [(EpisodeSource(self.frames, "front", size), share)]
            snapshots = self.options.data / "snapshots"
            if snapshots.is_dir():
                parts.append((SnapshotSource(read_snapshots(snapshots), size), 1 - share))
            if self.options.llava is not None:
                parts.append((LlavaSource(self.options.llava, size), LLAVA_WEIGHT))
            self._source = Mixture(parts)
        return self._source
