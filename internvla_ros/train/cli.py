"""`internvla train`: the stages of a recipe on a generated data set."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.normalisation import DatasetStatistics, dataset_statistics
from internvla_ros.data.snapshots import read_snapshots
from internvla_ros.model.policy import InternVLAM1
from internvla_ros.train.conversations import Mixture, Source
from internvla_ros.train.frames import EpisodeFrames, load_frames
from internvla_ros.train.loop import TrainingError
from internvla_ros.train.recipe import Recipe, load_recipe
from internvla_ros.train.sources import (
    EpisodeSource,
    LlavaSource,
    SnapshotSource,
    object_names,
    template_phrases,
)
from internvla_ros.train.stages import Run, adopt_actor, new_policy, stage_one, stage_two

STAGES = ("stage1", "actor", "stage2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--recipe", default="nano", help="name in config/train/ or a YAML file (default: nano)"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder written by `internvla generate`"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="run folder; each stage writes a folder in it"
    )
    parser.add_argument(
        "--stage",
        choices=(*STAGES, "all"),
        default="all",
        help="which stage to run (default: all, in order)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the stage from its last saved state"
    )
    parser.add_argument(
        "--steps", type=int, help="optimizer steps of the stage, instead of the recipe's"
    )
    parser.add_argument("--episodes", type=int, help="use only the first N episodes")
    parser.add_argument("--llava", type=Path, help="a LLaVA-style JSON file to mix into stage 1")
    parser.add_argument(
        "--unnorm-key", default="widowx_250s_tabletop", help="name of the data's statistics"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads (default: torch's choice)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the stages asked for."""
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = load_recipe(args.recipe)
    stages = STAGES if args.stage == "all" else (args.stage,)
    if args.steps is not None and len(stages) > 1:
        raise TrainingError("--steps needs one --stage")
    job = _Job(args, recipe)
    for stage in stages:
        folder = args.out / stage
        if not args.resume and (folder / "trainer_state.pt").exists():
            raise TrainingError(
                f"{folder} holds a run already; add --resume or choose another --out"
            )
        {"stage1": job.stage1, "actor": job.actor, "stage2": job.stage2}[stage](
            Run(folder, args.resume, args.steps)
        )
        print(f"{stage}: checkpoint in {folder / 'checkpoint'}")
    return 0


class _Job:
    """The data of one call, read once, and the stages on it."""

    def __init__(self, args: argparse.Namespace, recipe: Recipe) -> None:
        self.args = args
        self.recipe = recipe
        self.root: Path = args.data
        self.cameras = ("front",) if args.stage == "stage1" else ("front", "wrist")
        self._frames: EpisodeFrames | None = None
        self._source: Source | None = None

    def stage1(self, run: Run) -> None:
        """Grounding from scratch (or from where it stopped)."""
        policy = self._policy(self.args.out / "stage1" / "checkpoint") if run.resume else None
        if policy is None:
            statistics = {self.args.unnorm_key: self._statistics()}
            policy = new_policy(
                self.source, template_phrases(), statistics, self.recipe.stage1.loop.seed
            )
        stage_one(policy, self.recipe.stage1, self.source, object_names(), run)

    def actor(self, run: Run) -> None:
        """The actor on points and state alone."""
        policy, recipe = self._needed(STAGES[0]), self.recipe
        blind = load_frames(self.root, (), 0, self._episodes)
        stage_two(policy, recipe.actor, blind, None, run, recipe.stage1.coordinate_sigma)

    def stage2(self, run: Run) -> None:
        """Everything together, from the results of the two before."""
        policy = self._needed(STAGES[0])
        warm = self.args.out / "actor" / "checkpoint"
        if warm.is_dir():
            adopt_actor(policy, warm)
        recipe = self.recipe
        stage_two(
            policy, recipe.stage2, self.frames, self.source, run, recipe.stage1.coordinate_sigma
        )

    def _needed(self, stage: str) -> InternVLAM1:
        policy = self._policy(self.args.out / stage / "checkpoint")
        if policy is None:
            raise TrainingError(
                f"{self.args.out} has no checkpoint of {stage} yet; run --stage {stage} first"
            )
        return policy

    @staticmethod
    def _policy(folder: Path) -> InternVLAM1 | None:
        return InternVLAM1.from_pretrained(folder) if folder.is_dir() else None

    def _statistics(self) -> DatasetStatistics:
        return dataset_statistics(LeRobotDataset(self.root), self._episodes)

    @property
    def _episodes(self) -> range | None:
        return None if self.args.episodes is None else range(self.args.episodes)

    @property
    def frames(self) -> EpisodeFrames:
        """All frames of the data set, decoded at the first use."""
        if self._frames is None:
            self._frames = load_frames(self.root, self.cameras, 128, self._episodes)
        return self._frames

    @property
    def source(self) -> Source:
        """The mixture of conversations."""
        if self._source is None:
            size, share = (128, 128), self.recipe.stage1.episode_weight
            parts: list[tuple[Source, float]] = [(EpisodeSource(self.frames, "front", size), share)]
            snapshots = self.args.data / "snapshots"
            if snapshots.is_dir():
                parts.append((SnapshotSource(read_snapshots(snapshots), size), 1 - share))
            if self.args.llava is not None:
                parts.append((LlavaSource(self.args.llava, size), 0.2))
            self._source = Mixture(parts)
        return self._source
