"""One call of `internvla train`: its data, and the stages that it runs."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from internvla_ros.model.checkpoint import read_checkpoint
from internvla_ros.model.nano import IMAGE_SIZE
from internvla_ros.model.policy import Policy
from internvla_ros.train.batches import Share
from internvla_ros.train.corpus import Corpus, Library, load_corpus
from internvla_ros.train.errors import StoppedError, TrainingError
from internvla_ros.train.hardware import accelerator
from internvla_ros.train.loop import LATEST, Loop, LoopOptions, Objective
from internvla_ros.train.network import new_policy, restart, with_robots, with_words_in_draft
from internvla_ros.train.objectives import stage_one, stage_two
from internvla_ros.train.recipe import differences, load_recipe, write_recipe
from internvla_ros.train.settings import (
    STAGES,
    DataConfig,
    DataSet,
    LoopConfig,
    ModelConfig,
    Recipe,
    Stage,
)
from internvla_ros.train.states import States

RECIPE_FILE = "recipe.yaml"
DONE_FILE = "done"
RELEASED_SIDE = 224
VIEWS = "views"


@dataclass(frozen=True)
class Options:
    """What a user may set beside the recipe.

    `data` and `held_out` are folders of the recipe's sets, in its order; `stop_after` minutes.
    """

    out: Path
    data: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    resume: bool = False
    stop_after: float = math.inf
    device: str = "auto"
    threads: int = 0
    workers: int = 0
    tensorboard: bool = False
    views: Path | None = None
    """Folder for decoded views, if not the run's own."""
    stage1: Path | None = None
    """Where stage 1's checkpoint is, when it is another run's."""


class Job:
    """The stages of a recipe on its data, each in a folder of its name."""

    def __init__(self, recipe: Recipe, options: Options, stages: Sequence[Stage]) -> None:
        self.recipe, self.options = recipe, options
        self.stages = [stage for stage in STAGES if stage in stages and stage in recipe.stages]
        if not self.stages:
            raise TrainingError(
                f"the recipe {recipe.name} has the stages {', '.join(recipe.stages)} only"
            )
        if len(options.data) != len(recipe.data.sets):
            raise TrainingError(
                f"{len(options.data)} folders of data for {len(recipe.data.sets)} sets"
            )
        self.deadline = time.monotonic() + 60 * options.stop_after

    def run(self) -> bool:
        """Run the stages in their order; False where the time was over before they were done."""
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        self._refuse_to_overwrite()
        self._remember()
        for stage in self.stages:
            try:
                if not self._stage(stage):
                    return False
            except StoppedError:
                return False
        return True

    def _refuse_to_overwrite(self) -> None:
        for stage in () if self.options.resume else self.stages:
            folder = self.options.out / stage
            if States(folder, 1).steps() or is_done(folder, self.recipe.loop(stage)):
                raise TrainingError(
                    f"{folder} holds a run already; add --resume or choose another --out"
                )

    def _remember(self) -> None:
        """Keep the recipe with the run, and say where it differs from the one begun with."""
        path = self.options.out / RECIPE_FILE
        if path.is_file() and self.options.resume:
            for line in differences(load_recipe(path), self.recipe):
                print(f"other than when this run began: {line}", file=sys.stderr)
        if int(os.environ.get("RANK", "0")) == 0:
            write_recipe(path, self.recipe)

    def _stage(self, stage: Stage) -> bool:
        folder, config = self.options.out / stage, self.recipe.loop(stage)
        if is_done(folder, config):
            print(f"{stage}: done already, {folder / LATEST}")
            return True
        hardware = accelerator(self.recipe.model.precision, config.accumulate, self.options.device)
        share = Share(
            config.seed, config.accumulate, hardware.num_processes, hardware.process_index
        )
        objective = {"stage1": self._stage1, "actor": self._actor, "stage2": self._stage2}[stage](
            share
        )
        options = LoopOptions(self.options.workers, self.options.tensorboard, self.deadline)
        loop = Loop(objective, config, folder, hardware, options)
        if self.options.resume and loop.resume() and hardware.is_main_process:
            print(f"{stage}: going on at step {loop.step}")
        finished = loop.run()
        hardware.wait_for_everyone()
        if hardware.is_main_process:
            if finished:
                (folder / DONE_FILE).write_text(f"{config.steps}\n")
            words = "checkpoint" if finished else f"stopped at step {loop.step}, so far"
            print(f"{stage}: {words} in {folder / LATEST}")
        hardware.free_memory()
        return finished

    def _stage1(self, share: Share) -> Objective:
        recipe, config = self.recipe, self.recipe.stage1
        assert config is not None
        cameras = recipe.model.cameras[:1]
        corpus, held_out = self._corpora(cameras, config.episode_weight)
        policy = self._begun("stage1", corpus) or new_policy(
            recipe.model, corpus.source, corpus.names, corpus.statistics, config.loop.seed
        )
        return stage_one(policy, recipe.model, config, corpus, held_out, share)

    def _actor(self, share: Share) -> Objective:
        recipe, config = self.recipe, self.recipe.actor
        assert config is not None
        if config.grounding_batch_size or config.action.condition_dropout < 1:
            raise TrainingError("the actor's warm-up sees nothing: condition_dropout must be 1")
        corpus, held_out = self._corpora(())
        policy = self._begun("actor", corpus) or self._before(corpus)
        return stage_two(policy, recipe.model, config, corpus, held_out, share, 0.0)

    def _stage2(self, share: Share) -> Objective:
        recipe, config = self.recipe, self.recipe.stage2
        corpus, held_out = self._corpora(recipe.model.cameras)
        policy = self._begun("stage2", corpus)
        if policy is None:
            policy = self._before(corpus)
            if recipe.actor is not None:
                self._take_warm_actor(policy)
        sigma = 0.0 if recipe.stage1 is None else recipe.stage1.coordinate_sigma
        return stage_two(policy, recipe.model, config, corpus, held_out, share, sigma)

    def _begun(self, stage: Stage, corpus: Corpus) -> Policy | None:
        """What the stage wrote last; its weights are then replaced by those of its state."""
        folder = self.options.out / stage / LATEST
        if not self.options.resume or not folder.is_dir():
            return None
        return restart(folder, corpus.statistics)

    def _take_warm_actor(self, policy: Policy) -> None:
        warm = self.options.out / "actor" / LATEST
        if not warm.is_dir():
            raise TrainingError(f"{warm} is missing; run --stage actor first")
        policy.actor.dit.load_state_dict(restart(warm, None).actor.dit.state_dict())

    def _before(self, corpus: Corpus) -> Policy:
        """Stage 1's result with the data's statistics; without one, what the recipe starts from."""
        recipe = self.recipe
        folder = self.options.stage1 or self.options.out / "stage1" / LATEST
        tuned = recipe.model.start and self.options.stage1 is None and not folder.is_dir()
        if recipe.stage1 is None or tuned:
            model, seed = recipe.model, recipe.stage2.loop.seed
            talking = corpus
            if not corpus.talkers and model.size == "nano" and not model.start:
                talking = self._corpora(model.cameras[:1])[0]
            source = talking.source if talking.talkers else None
            return new_policy(model, source, talking.names, corpus.statistics, seed)
        if not folder.is_dir():
            raise TrainingError(f"{folder} is missing; run --stage 1 first")
        policy = restart(folder, corpus.statistics)
        if recipe.model.draft_words:
            policy = with_words_in_draft(policy)
        policy = with_robots(policy, sorted(corpus.statistics))
        # Stage 1's may have been trained for other prompts than those that stage 2 acts under, and
        # says nothing of actions.
        policy.config = policy.planner.policy_config = replace(
            policy.config, prompt=recipe.model.prompt, noise_scale=recipe.model.noise_scale
        )
        return policy

    def _corpora(
        self, cameras: Sequence[str], episode_weight: float = 0.5
    ) -> tuple[Corpus, Corpus | None]:
        """What is trained on, and what is only looked at."""
        side = image_side(self.recipe.model)
        data, store = self.recipe.data, None
        if data.stored_views:
            store = self.options.views or self.options.out / VIEWS
        library = Library(data, self.options.data, store, self.deadline)
        corpus = load_corpus(library, cameras, (side, side), episode_weight)
        if not self.options.held_out:
            return corpus, None
        held_out = load_corpus(self._held_out(library), cameras, (side, side))
        known = corpus.statistics
        sets = [replace(s, statistics=known.get(s.name, s.statistics)) for s in held_out.sets]
        return corpus, replace(held_out, sets=tuple(sets))

    def _held_out(self, library: Library) -> Library:
        """All episodes of the held-out folders."""
        own = {s.name: s for s in library.config.sets}
        sets = [
            replace(
                own.get(path.name, DataSet(path.name)),
                name=f"held_out_{path.name}",
                path=str(path),
                episodes=0,
                snapshots=0,
            )
            for path in self.options.held_out
        ]
        config = DataConfig(sets=tuple(sets))
        return replace(library, config=config, folders=self.options.held_out)


def image_side(model: ModelConfig) -> int:
    """Pixels of the square that every view is resized to."""
    if not model.start:
        return IMAGE_SIZE if model.size == "nano" else RELEASED_SIDE
    size = read_checkpoint(model.start).config.planner.image_size
    if size is None or size[0] != size[1]:
        raise TrainingError(f"{model.start} does not see square views, as training needs")
    return size[0]


def is_done(folder: Path, config: LoopConfig) -> bool:
    """Whether a stage has been trained to its last step."""
    try:
        return int((folder / DONE_FILE).read_text()) >= config.steps
    except (OSError, ValueError):
        return False


def with_data(
    recipe: Recipe, folders: Sequence[str], unnorm_key: str = ""
) -> tuple[Recipe, tuple[Path, ...]]:
    """A recipe on the folders that the user names ("DIR" or "DIR=WEIGHT"), and those folders.

    `unnorm_key` names their statistics; empty: as their robots' files do.
    """
    sets = []
    for entry in folders:
        path, equals, weight = entry.rpartition("=")
        path, share = (path, _weight(entry, weight)) if equals else (entry, 1.0)
        name = Path(path).resolve().name
        sets.append(DataSet(name, path=path, weight=share, unnorm_key=unnorm_key))
    if len({s.name for s in sets}) != len(sets):
        raise TrainingError("two folders of data have the same name")
    return replace(recipe, data=replace(recipe.data, sets=tuple(sets))), tuple(
        Path(s.path) for s in sets
    )


def _weight(entry: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not weight >= 0:
        raise TrainingError(f"--data {entry}: the weight after = must be a number, not {text!r}")
    return weight
