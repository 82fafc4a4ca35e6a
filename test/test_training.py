"""Training: exact resume, sums that do not depend on how a step is cut, losses that fall."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_training import RECIPE, episode, write_data, write_recipe
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from internvla_ros.control.chunk import integrate
from internvla_ros.data.lerobot import DatasetError, EpisodeWriter, LeRobotDataset
from internvla_ros.model.actor import Actor
from internvla_ros.model.chat import IGNORED
from internvla_ros.model.config import ActorConfig
from internvla_ros.model.policy import Policy
from internvla_ros.model.tokenizer import taught
from internvla_ros.model.weights import tied_entries
from internvla_ros.model.words import MAX_WORDS, Words
from internvla_ros.motion.se3 import Pose, distance, rot6d, rpy_to_matrix
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.spatial.types import Turn
from internvla_ros.train.actions import action_losses, draw, planned_rows
from internvla_ros.train.batches import Share
from internvla_ros.train.conversations import Conversation, Scribe, grounding_losses
from internvla_ros.train.corpus import Corpus, Library, load_corpus
from internvla_ros.train.dense import DenseDetection, Labelled, Labeller, words_of
from internvla_ros.train.errors import StoppedError, TrainingError
from internvla_ros.train.frames import EpisodeFrames, Reading, load_frames
from internvla_ros.train.hardware import accelerator
from internvla_ros.train.job import Job, Options, with_data
from internvla_ros.train.loop import Group, Loop, LoopOptions, Objective
from internvla_ros.train.network import new_policy, with_robots, with_words_in_draft
from internvla_ros.train.objectives import joint_batches, write_policy
from internvla_ros.train.recipe import load_recipe
from internvla_ros.train.settings import LoopConfig, ModelConfig, Recipe
from internvla_ros.train.sources import arranged, template_phrases
from internvla_ros.train.states import MANIFEST
from internvla_ros.train.words import with_words

NOT_REPEATED = ("steps_per_s", "data_wait")
"""Entries of a metrics line that time makes."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever ran before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The loop, on a network that is trained in no time.


@dataclass(frozen=True)
class Numbers:
    """Inputs and wanted outputs."""

    x: Tensor
    y: Tensor

    @property
    def counts(self) -> dict[str, float]:
        return {"error": len(self.x)}

    def to(self, device: torch.device) -> Numbers:
        return self


@dataclass
class Draws:
    """Batches of a noisy sum; asks `loop` to stop when batch `stop` is made."""

    share: Share
    size: int = 8
    stop: int = -1
    loop: list[Loop] = field(default_factory=list)

    def __getitem__(self, number: int) -> Numbers:
        if number == self.stop:
            self.loop[0].stopped = True
        step, rows, total = self.share.rows(number, self.size)
        rng = np.random.default_rng((self.share.seed, step))
        x = torch.as_tensor(rng.normal(size=(total, 3))[rows], dtype=torch.float32)
        noise = torch.as_tensor(rng.normal(size=(total, 1))[rows], dtype=torch.float32)
        return Numbers(x, x.sum(dim=1, keepdim=True) + 0.1 * noise)


class Regression(nn.Module):
    """A linear network with dropout, which draws from torch's own stream."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        return {"error": ((self.linear(self.dropout(batch.x)) - batch.y) ** 2).sum()}


def regression(
    folder: Path, stop: int = -1, dropout: float = 0.2, size: int = 8, **changes: Any
) -> Loop:
    """A loop on it, which goes on where its folder's run stopped."""
    config = LoopConfig(
        steps=12, warmup_steps=3, cooldown_steps=4, ema_decay=0.9, save_every=5, log_every=1
    )
    config = replace(config, **changes)
    network = Regression(dropout)
    batches = Draws(Share(config.seed, config.accumulate), size, stop)
    groups = [Group("all", list(network.parameters()), 0.1)]
    objective = Objective(
        network, groups, {"error": 1.0}, batches, lambda entries, path, step: None
    )
    hardware = accelerator("no", config.accumulate, "cpu")
    loop = Loop(objective, config, folder, hardware, LoopOptions(progress=False))
    batches.loop.append(loop)
    loop.resume()
    return loop


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run, without what time makes."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in NOT_REPEATED} for line in lines]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = regression(tmp_path / "whole")
    assert whole.run()
    parts = tmp_path / "parts"
    assert not regression(parts, stop=4).run()
    assert not regression(parts, stop=9).run()
    last = regression(parts)
    assert last.step == 9
    assert last.run()
    assert metrics(parts) == metrics(tmp_path / "whole")
    for ours, theirs in zip(last.best.parameters(), whole.best.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_after_its_step(tmp_path: Path, number: signal.Signals) -> None:
    loop = regression(tmp_path)
    draws = loop.objective.batches

    class Killed:
        def __getitem__(self, batch: int) -> Any:
            if batch == 6:
                os.kill(os.getpid(), number)
            return draws[batch]

    loop.objective = replace(loop.objective, batches=Killed())
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert signal.getsignal(number) is not None
    again = regression(tmp_path)
    assert again.step == 6
    assert again.run()
    regression(tmp_path / "whole").run()
    assert metrics(tmp_path) == metrics(tmp_path / "whole")


def test_lines_after_the_newest_state_are_written_again(tmp_path: Path) -> None:
    regression(tmp_path / "whole").run()
    killed = tmp_path / "killed"
    regression(killed, stop=6).run()
    with (killed / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "loss": 1.0}\n{"step": 9, "lo')
    regression(killed).run()
    assert metrics(killed) == metrics(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flip", "lost", "manifest"])
def test_a_damaged_state_is_named_and_the_one_before_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    regression(tmp_path / "whole").run()
    folder = tmp_path / "hurt"
    regression(folder).run()
    newest = folder / "states" / "step_00000012"
    weights = newest / "optimizer.bin"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif damage == "flip":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(bytes(content))
    elif damage == "lost":
        weights.unlink()
    else:
        (newest / MANIFEST).write_text('{"step"')
    again = regression(folder)
    said = capsys.readouterr().err
    assert "WARNING" in said and "step 12" in said
    assert (MANIFEST if damage == "manifest" else "optimizer.bin") in said
    assert again.step == 10
    assert again.run()
    assert metrics(folder) == metrics(tmp_path / "whole")


def test_a_run_without_a_whole_state_is_refused(tmp_path: Path) -> None:
    regression(tmp_path, keep=1).run()
    (tmp_path / "states" / "step_00000012" / MANIFEST).unlink()
    with pytest.raises(TrainingError, match=r"no state in .* is whole"):
        regression(tmp_path, keep=1)


def test_only_the_newest_states_are_kept(tmp_path: Path) -> None:
    loop = regression(tmp_path, save_every=2, keep=3)
    loop.run()
    assert loop.states.steps() == [8, 10, 12]
    assert not list((tmp_path / "states").glob(".writing*"))


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path: Path) -> None:
    regression(tmp_path / "one", dropout=0.0, size=8).run()
    regression(tmp_path / "four", dropout=0.0, size=2, accumulate=4).run()
    one, four = metrics(tmp_path / "one"), metrics(tmp_path / "four")
    for ours, theirs in zip(four, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    loop = regression(tmp_path)
    with torch.no_grad():
        next(loop.module.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite at step 0"):
        loop.run()


@given(
    step=st.integers(0, 99),
    warmup=st.integers(0, 40),
    peak=st.floats(1e-6, 1.0),
    decay=st.sampled_from(["linear", "cosine"]),
)
def test_rates_rise_then_fall_to_the_floor(step: int, warmup: int, peak: float, decay: Any) -> None:
    config = LoopConfig(100, warmup, decay, cooldown_steps=50, floor=0.0, floor_rate=5e-7)
    rate, following = (config.learning_rate(s, peak) for s in (step, step + 1))
    assert 0 < rate <= peak * (1 + 1e-9)
    assert config.learning_rate(100, peak) == pytest.approx(min(5e-7, peak))
    if step + 1 < warmup and decay == "cosine":
        assert following > rate
    if step >= max(warmup, 50):
        assert following <= rate


def test_tensorboard_files_are_written_where_wanted(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    loop = regression(tmp_path, steps=2)
    loop.options = LoopOptions(tensorboard=True, progress=False)
    loop.run()
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


# How a step is cut.


@given(processes=st.integers(1, 4), accumulate=st.integers(1, 3), size=st.integers(1, 5))
def test_processes_share_the_rows_of_a_step(processes: int, accumulate: int, size: int) -> None:
    rows: list[int] = []
    for rank in range(processes):
        share = Share(0, accumulate, processes, rank)
        for part in range(accumulate):
            step, own, total = share.rows(3 * accumulate + part, size)
            assert step == 3
            rows += own.tolist()
    assert sorted(rows) == list(range(total))


@given(dropout=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), size=st.integers(1, 40))
def test_the_share_with_a_plan_is_that_of_every_part(dropout: float, size: int) -> None:
    planned = planned_rows(np.arange(4 * size), dropout)
    for part in np.split(planned, 4):
        assert abs(part.sum() - (1 - dropout) * size) < 1


# Data and losses.


def test_chunks_past_the_end_hold_pose_and_gripper() -> None:
    action = np.arange(35, dtype=np.float32).reshape(5, 7) + 1
    action[:, 6] = [1, 1, 0, 1, 0]
    data = EpisodeFrames(
        views={},
        state=np.zeros((5, 10), np.float32),
        action=action,
        onward=action,
        points=np.zeros((5, 2, 2), np.float32),
        first=np.array([0, 0, 0, 3, 3]),
        last=np.array([2, 2, 2, 4, 4]),
        records=(),
        record_of=np.array([0, 0, 0, 1, 1]),
        row_of=np.array([0, 1, 2, 0, 1]),
        stored_size=(4, 4),
        begins=np.arange(5),
    )
    chunks = data.chunks(np.array([1, 3]), 4)
    np.testing.assert_array_equal(chunks[0, :2], action[1:3])
    np.testing.assert_array_equal(chunks[0, 2:, :6], 0)
    np.testing.assert_array_equal(chunks[0, 2:, 6], 0)  # the gripper as it was, closed
    np.testing.assert_array_equal(chunks[1, :2], action[3:5])
    assert data.action[2, 0] == 15  # the data themselves are untouched


def test_a_chunk_leads_from_the_measured_pose_through_all_poses_that_were_wanted(
    tmp_path: Path,
) -> None:
    """The robot's deltas add to the measured pose, which the arm has not reached yet."""
    rng = np.random.default_rng(0)
    made = episode(0)
    turns = [rpy_to_matrix(rng.uniform(-1, 1, 3)) for _ in range(len(made))]
    measured = [Pose(rng.uniform(0, 0.5, 3), turn) for turn in turns]
    states = [[*pose.position, *rot6d(pose.rotation), 1.0] for pose in measured]
    with EpisodeWriter(tmp_path / "data", fps=5, robot_type="google_robot") as writer:
        writer.write(replace(made, state=np.array(states)))
    recipe, folders = with_data(load_recipe(write_recipe(tmp_path)), [str(tmp_path / "data")])
    library = Library(recipe.data, folders, None, progress=False)
    (own,) = load_corpus(library, (), (8, 8)).sets
    convention = load_embodiment("google_robot").action
    wanted = [
        integrate(pose, action[None], convention)[1]
        for pose, action in zip(measured, np.float64(made.action), strict=True)
    ]
    chunks = np.float64(own.frames.chunks(np.arange(len(made)), 8))
    for frame, chunk in enumerate(chunks):
        _, *reached = integrate(measured[frame], chunk, convention)
        for step, pose in enumerate(reached):
            due = wanted[min(frame + step, len(wanted) - 1)]
            assert distance(pose, due) == pytest.approx((0, 0), abs=1e-5)
    np.testing.assert_array_equal(own.frames.action, np.float32(made.action))


# For the session, because tests that start processes run last, after those of other modules.
@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_data(tmp_path_factory.mktemp("data") / "squares")


def read(data: Path, **how: Any) -> EpisodeFrames:
    """The data with the front view, small and quietly."""
    return load_frames(LeRobotDataset(data), ("front",), 32, Reading(progress=False, **how))


def test_views_stored_and_decoded_are_the_same(data: Path, tmp_path: Path) -> None:
    rows = np.array([0, 17, 5, 6])
    stored, decoded = read(data, store=tmp_path), read(data)
    np.testing.assert_array_equal(stored.views["front"][rows], decoded.views["front"][rows])


def test_storing_views_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    whole = read(data, store=tmp_path / "whole")
    for _ in range(2):  # each call manages one episode before its time is over
        with pytest.raises(StoppedError):
            read(data, store=tmp_path / "cut", deadline=0.0)
    assert json.loads((tmp_path / "cut" / "front_32.json").read_text())["done"] == 2
    cut, rows = read(data, store=tmp_path / "cut"), np.arange(len(whole))
    np.testing.assert_array_equal(cut.views["front"][rows], whole.views["front"][rows])


@pytest.mark.parametrize("kind", ["mp4", "parquet"])
def test_a_damaged_episode_is_named_and_skipped_on_request_only(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "squares")
    hurt = next(
        path for path in sorted(folder.rglob(f"*_000001.{kind}")) if "wrist" not in str(path)
    )
    hurt.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=hurt.name):
        read(folder, store=tmp_path / "views")
    frames = read(folder, store=tmp_path / "views", skip_damaged=True)
    assert hurt.name in capsys.readouterr().err
    kept = {frames.records[i].index for i in frames.record_of[frames.begins]}
    assert kept == {0, 2}
    with pytest.raises(DatasetError, match=hurt.name):  # not remembered as fine
        read(folder, store=tmp_path / "views")


def test_no_chunk_begins_in_a_pause_where_these_are_dropped(tmp_path: Path) -> None:
    still = episode(0)
    still.action[2:4, :6] = 0.0
    still.action[:, 6] = 1.0
    with EpisodeWriter(tmp_path / "pauses", fps=5) as writer:
        writer.write(still)
    assert read(tmp_path / "pauses").begins.tolist() == [0, 1, 2, 3, 4, 5]
    assert read(tmp_path / "pauses", drop_pauses=True).begins.tolist() == [0, 1, 4, 5]


def squares(rng: np.random.Generator) -> Conversation:
    """One red square on grey, and where it is."""
    x, y = rng.integers(0, 96, size=2)
    image = np.full((128, 128, 3), 120, np.uint8)
    image[y : y + 32, x : x + 32] = (220, 30, 30)
    box = f'[{{"bbox_2d": [{x}, {y}, {x + 32}, {y + 32}], "label": "red cube"}}]'
    turn = Turn("Locate the red cube. Output its bounding box in [x1,y1,x2,y2] format.", box)
    return Conversation(
        image, [turn], Labelled(("red cube",), np.array([[x, y, x + 32, y + 32.0]]))
    )


@pytest.fixture(scope="session")
def policy() -> Policy:
    """An untrained nano policy that can talk about the red cube."""
    return new_policy(ModelConfig(), squares, ("red cube",), {}, seed=0)


def test_grounding_losses_fall(policy: Policy) -> None:
    planner = policy.planner
    words = words_of(["red cube"])
    dense = DenseDetection(planner.hidden_dim, 128, words, policy.tokenizer)
    labeller = Labeller(planner.merged_grid, (128, 128), words)
    scribe = Scribe(planner.chat_format, planner.merged_grid, labeller)
    optimizer = torch.optim.AdamW([*planner.parameters(), *dense.parameters()], lr=2e-3)
    rng, history = np.random.default_rng(0), []
    for _ in range(15):
        talk = scribe([squares(rng) for _ in range(4)])
        sums = grounding_losses(planner, talk, None, dense)
        means = {name: value / talk.counts[name] for name, value in sums.items()}
        optimizer.zero_grad()
        torch.stack(list(means.values())).sum().backward()
        optimizer.step()
        history.append([float(means[k].detach()) for k in ("grounding", "naming")])
    assert (np.mean(history[-3:], axis=0) < 0.6 * np.array(history[0])).all()


def test_only_answers_carry_loss(policy: Policy) -> None:
    chat = policy.planner.chat_format
    turns = [Turn("Locate the red cube.", "[(1, 2)]"), Turn("And now?", "[(3, 4)]")]
    ids, labels = chat.training_sequence(turns, [4])
    answered = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert chat.decode(answered) == "[(1, 2)][(3, 4)]"
    assert answered.count(chat.end) == 2
    assert ids.count(chat.image_token) == 4


def test_arranged_asks_for_boxes_and_points_first_or_keeps_the_order() -> None:
    boxes = Turn(
        "Your task is x. To identify the key objects for your task. Locate their bounding "
        "boxes in [x1,y1,x2,y2] format.",
        "b",
    )
    points = Turn("Your task is x. Point to the object to grasp and to the place to put it.", "p")
    trace = Turn("Your task is x. Predict the future trajectory of the gripper.", "t")
    name = Turn("Locate the red cube. Output its bounding box in [x1,y1,x2,y2] format.", "n")
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        seen.add("".join(turn.answer for turn in arranged([name, trace, points, boxes], rng)))
    assert seen == {"bpn", "npb", "bpt", "tpb"}


def test_phrases_are_single_tokens(policy: Policy) -> None:
    for phrase in template_phrases():
        assert len(policy.tokenizer.encode(phrase, add_special_tokens=False)) == 1


NEW = ("salad dressing", "red salad", "mug")


@given(st.lists(st.text("abdelmou", min_size=1, max_size=9), min_size=1, max_size=4))
@example(["aaaa", "aaaaa"])
@settings(max_examples=20, deadline=None)
def test_words_that_are_taught_get_a_token_and_take_none_away(
    policy: Policy, words: list[str]
) -> None:
    old = policy.tokenizer
    new = taught(old, words)
    for word in words:
        assert len(new.tokenize(word)) == len(new.tokenize(f" {word}")) == 1
    for text in (*template_phrases(), "put the red cube", "128", '[{"bbox_2d": [1, 2, 30, 44]'):
        assert new.tokenize(text) == old.tokenize(text)
        assert new.decode(new.encode(text)) == text
    said = f"the {' '.join(words)} and the red cube"
    assert new.decode(new.encode(said)) == said
    assert sorted(new.get_vocab().values()) == list(range(len(new)))


def test_only_words_of_letters_are_taught(policy: Policy) -> None:
    with pytest.raises(ValueError, match="'cube2' is no word of letters"):
        taught(policy.tokenizer, ["cube2"])


def test_the_draft_reads_words_as_before_when_others_are_taught(policy: Policy) -> None:
    before = with_words_in_draft(policy)
    nn.init.normal_(before.actor.dit.draft_words.weight)
    after = with_words(before, ("quince",))
    assert len(after.tokenizer) > len(before.tokenizer)
    for text in ("red cube", "", "quince"):
        (old, new) = (
            each.actor.dit.draft_words(each.actor.words([text])) for each in (before, after)
        )
        if text != "quince":
            torch.testing.assert_close(old, new)
    assert (after.actor.words(["quince"]) != after.actor.words.none).sum() == 1


def test_a_policy_that_is_taught_words_reads_others_as_before(policy: Policy) -> None:
    grown = with_words(policy, words_of(NEW))
    assert with_words(grown, words_of(NEW)) is grown
    view = [[np.full((48, 64, 3), 90, np.uint8)]]
    plans = [p.eval().plan(view, ["put the red cube down"]) for p in (policy, grown)]
    torch.testing.assert_close(plans[0].hidden_states, plans[1].hidden_states)
    rows = {p: p.planner.vlm.model.language_model.embed_tokens.weight for p in (policy, grown)}
    (salad,) = grown.tokenizer.encode("salad")
    pieces = policy.tokenizer.encode("salad")
    assert len(pieces) > 1
    torch.testing.assert_close(rows[grown][salad], rows[policy][pieces].mean(dim=0))
    assert tied_entries(grown) == tied_entries(policy)


# Stage 2.


@dataclass(frozen=True)
class Stage:
    """A new policy, its data and the recipe."""

    recipe: Recipe
    policy: Policy
    corpus: Corpus


@pytest.fixture(scope="session")
def stage(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What stage 2 starts from when there is no stage 1."""
    folder = tmp_path_factory.mktemp("stage")
    recipe, folders = with_data(load_recipe(write_recipe(folder)), [str(data)])
    library = Library(recipe.data, folders, folder, progress=False)
    corpus = load_corpus(library, recipe.model.cameras, (128, 128))
    fresh = new_policy(recipe.model, corpus.source, corpus.names, corpus.statistics, 0)
    # The last layer starts at zero, which would let no gradient through.
    nn.init.normal_(fresh.actor.dit.final.weight, std=0.1)
    return Stage(recipe, fresh.train(), corpus)


def test_sets_are_drawn_by_weight_and_those_of_one_robot_share_statistics(
    data: Path, tmp_path: Path
) -> None:
    other = write_data(tmp_path / "others", range(20, 22))
    path = write_recipe(tmp_path)
    recipe, folders = with_data(load_recipe(path), [f"{data}=3", str(other)])
    corpus = load_corpus(Library(recipe.data, folders, None, progress=False), (), (128, 128))
    (statistics,) = corpus.statistics.values()
    assert [s.statistics for s in corpus.sets] == [statistics, statistics]
    assert (statistics.num_transitions, statistics.num_trajectories) == (30, 5)
    assert [s.rate for s in corpus.sets] == [5.0, 5.0]
    actions = np.concatenate([s.frames.action for s in corpus.sets])
    np.testing.assert_allclose(statistics.action.mean, actions.mean(axis=0), rtol=1e-5)
    rng, rows = np.random.default_rng(0), np.arange(4000)
    config, actor = recipe.stage2.action, ActorConfig(state_dim=10)
    samples = draw(corpus.sets, config, actor, len(rows), rows, rng)
    assert abs((samples.sets == 0).mean() - 0.75) < 0.03
    one, _ = with_data(load_recipe(path), [str(data)], unnorm_key="mine")
    assert list(load_corpus(Library(one.data, (data,), None), (), (8, 8)).statistics) == ["mine"]


def planner_gradient(stage: Stage, decay: float) -> Tensor:
    """The gradient of the action loss at the planner's first matrix."""
    action = replace(stage.recipe.stage2.action, gradient_decay=decay, condition_dropout=0.0)
    config = replace(stage.recipe.stage2, action=action, grounding_batch_size=0)
    batch = joint_batches(stage.policy, config, stage.corpus, Share(0))[0]
    stage.policy.zero_grad()
    action_losses(stage.policy, batch.action, action)["action"].backward()
    weight = stage.policy.planner.vlm.model.language_model.layers[0].self_attn.q_proj.weight
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()


def test_a_share_of_the_actors_gradient_reaches_the_planner(stage: Stage) -> None:
    whole, half, none = (planner_gradient(stage, decay) for decay in (1.0, 0.5, 0.0))
    assert float(whole.norm()) > 0
    torch.testing.assert_close(half, 0.5 * whole)
    assert not none.any()


def test_the_backbone_reads_a_sample_once_for_all_its_draws(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = replace(stage.recipe.stage2.action, repeated_diffusion_steps=5)
    config = replace(stage.recipe.stage2, action=action)
    batch = joint_batches(stage.policy, config, stage.corpus, Share(0))[0].action
    seen: list[int] = []
    original = stage.policy.planner.see
    monkeypatch.setattr(
        stage.policy.planner, "see", lambda samples: seen.append(len(samples)) or original(samples)
    )
    denoised: list[int] = []
    denoise = stage.policy.actor.dit.denoise
    monkeypatch.setattr(
        stage.policy.actor.dit,
        "denoise",
        lambda noisy, *rest: denoised.append(len(noisy)) or denoise(noisy, *rest),
    )
    action_losses(stage.policy, batch, action)
    assert seen == [2] and denoised == [20]


def acted(policy: Policy, planned: bool, instruction: str = "take the red cube") -> np.ndarray:
    """A chunk whose plan is always that of one instruction, as far as its hidden states go."""
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(2)]
    plan = policy.plan([views], ["take the red cube"]) if planned else None
    if plan is not None:
        plan = replace(plan, instructions=(instruction,))
    return policy.act([views], plan, np.zeros((1, 10)), np.full((1, 2, 2), 0.5))


@pytest.mark.parametrize("planned", [False, True])
def test_a_draft_says_at_first_what_it_said_before_it_read_words(
    stage: Stage, planned: bool
) -> None:
    reading = with_words_in_draft(stage.policy)
    assert with_words_in_draft(reading) is reading
    np.testing.assert_array_equal(acted(stage.policy, planned), acted(reading, planned))


def test_a_draft_that_reads_words_acts_on_them(stage: Stage) -> None:
    policy = with_words_in_draft(stage.policy)
    nn.init.normal_(policy.actor.dit.draft_words.weight)
    red, again, blue = (
        acted(policy, True, f"Take the {name} cube") for name in ("red", "RED", "blue")
    )
    np.testing.assert_array_equal(red, again)
    assert np.abs(red - blue).max() > 1e-4


def test_words_are_learnt_but_those_that_are_withheld(stage: Stage) -> None:
    policy = with_words_in_draft(stage.policy)
    weight = policy.actor.dit.draft_words.weight
    for dropout, reached in ((0.0, True), (1.0, False)):
        action = replace(stage.recipe.stage2.action, word_dropout=dropout)
        config = replace(stage.recipe.stage2, action=action)
        batch = joint_batches(policy, config, stage.corpus, Share(0))[0].action
        assert batch.words is not None and batch.drafts is not None
        assert (batch.words != policy.actor.words.none).any() == reached
        policy.zero_grad()
        action_losses(policy, batch, action)["draft"].backward()
        assert (weight.grad is not None and bool(weight.grad.any())) == reached


def test_instructions_of_any_length_are_rows_of_one_length(policy: Policy) -> None:
    words = Words(policy.config, policy.tokenizer)
    rows = words(["", "red cube", "red " * 99])
    assert rows.shape == (3, MAX_WORDS)
    assert [(row != words.none).sum().item() for row in rows] == [0, 2, MAX_WORDS]


def test_only_a_policy_that_drafts_can_have_its_draft_read(policy: Policy) -> None:
    actor = replace(policy.config.actor, draft_scale=0.0)
    plain = Policy(replace(policy.config, actor=actor), policy.tokenizer, {})
    with pytest.raises(TrainingError, match="drafts no chunks"):
        with_words_in_draft(plain)
    reading = with_words_in_draft(policy).config
    with pytest.raises(ValueError, match="no tokenizer"):
        Actor(reading, {})


def two_robots(stage: Stage) -> Policy:
    """The policy with another robot's statistics beside its own, told apart."""
    own = next(iter(stage.policy.statistics.values()))
    both = {"arm": own, "other": own}
    policy = Policy(stage.policy.config, stage.policy.tokenizer, both)
    policy.load_state_dict(stage.policy.state_dict())
    return with_robots(policy, sorted(both))


def test_robots_are_told_apart_once_taught(stage: Stage) -> None:
    assert with_robots(stage.policy, ["arm"]) is stage.policy
    policy = two_robots(stage)
    assert policy.config.actor.embodiments == ("arm", "other")
    assert with_robots(policy, ["other"]) is policy
    states, points = np.full((1, 10), 0.2), np.full((1, 2, 2), 0.4)

    def drafted(name: str) -> NDArray[np.float64]:
        return policy.act([[]], None, states, points, unnorm_key=name)

    before = stage.policy.act([[]], None, states, points)
    np.testing.assert_allclose(drafted("arm"), before, atol=1e-6)
    np.testing.assert_array_equal(drafted("arm"), drafted("other"))
    with torch.no_grad():
        policy.actor.dit.draft[0].weight[:, -1] = 1.0
    np.testing.assert_allclose(drafted("arm"), before, atol=1e-6)
    assert np.abs(drafted("other") - before).max() > 1e-4
    grown = with_robots(policy, ["third"])
    assert grown.config.actor.embodiments == ("arm", "other", "third")
    weight = grown.actor.dit.draft[0].weight
    torch.testing.assert_close(weight[:, -1], weight[:, -3:-1].mean(dim=1))


def test_samples_say_which_robot_they_are_of(stage: Stage) -> None:
    (own,) = stage.corpus.sets
    sets = [replace(own, name="arm"), replace(own, name="other")]
    actor = two_robots(stage).config.actor
    config, rows = stage.recipe.stage2.action, np.arange(64)
    samples = draw(sets, config, actor, len(rows), rows, np.random.default_rng(0))
    assert samples.states.shape == (64, 12)
    told = np.eye(2)[samples.sets]
    np.testing.assert_array_equal(samples.states[:, 10:], told)
    plain = draw(sets, config, replace(actor, embodiments=()), 64, rows, np.random.default_rng(0))
    torch.testing.assert_close(plain.states, samples.states[:, :10])


def test_draws_of_noise_are_all_different(stage: Stage) -> None:
    batch = joint_batches(stage.policy, stage.recipe.stage2, stage.corpus, Share(0))[0].action
    flat = batch.noise.flatten(0, 1).flatten(1)
    assert len({tuple(row.tolist()) for row in flat}) == len(flat)
    assert batch.noise.shape[:2] == batch.timesteps.shape == (2, 4)


def test_gradient_checkpointing_changes_no_gradient(stage: Stage) -> None:
    plain = planner_gradient(stage, 1.0)
    inner = stage.policy.planner.vlm.model
    inner.language_model.gradient_checkpointing = inner.visual.gradient_checkpointing = True
    again = planner_gradient(stage, 1.0)
    inner.language_model.gradient_checkpointing = inner.visual.gradient_checkpointing = False
    torch.testing.assert_close(plain, again)


@pytest.fixture(scope="session")
def start(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of stage 2 alone that goes on from a checkpoint, with the data's name in it."""
    folder = tmp_path_factory.mktemp("start")
    policy = stage.policy
    write_policy(
        folder / "policy",
        policy.config,
        policy.tokenizer,
        policy.statistics,
        {k: v for k, v in policy.state_dict().items() if k not in tied_entries(policy)},
        "",
    )
    text = _without_stage_1(RECIPE).replace("size: nano,", f"start: {folder / 'policy'},")
    return write_recipe(folder, text)


def small_job(
    start: Path, data: Path, out: Path, changes: tuple[str, ...] = (), **options: Any
) -> Job:
    """Stage 2 alone of the small recipe."""
    recipe, folders = with_data(load_recipe(start, changes), [str(data)])
    return Job(recipe, Options(out, folders, threads=1, **options), ("stage2",))


@pytest.fixture(scope="session")
def whole(start: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished, uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert small_job(start, data, out).run()
    return out


def _without_stage_1(text: str) -> str:
    kept, skipping = [], False
    for line in text.splitlines(keepends=True):
        if not line.startswith(" "):
            skipping = line.startswith(("stage1:", "actor:"))
        if not skipping:
            kept.append(line)
    return "".join(kept)


def test_adapters_are_merged_on_export(start: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    changes = ("model.lora_rank=4", "stage2.loop.steps=2", "stage2.loop.ema_decay=0")
    job = small_job(start, data, tmp_path / "run", changes)
    objective = job._stage2(Share(0))
    assert {g.name for g in objective.groups} >= {"planner.adapters", "actor"}
    hardware = accelerator("no", 1, "cpu")
    loop = Loop(objective, job.recipe.stage2.loop, tmp_path / "run", hardware)
    loop.run()
    module: Any = objective.module
    trained = module.policy.planner.eval()
    loaded = Policy.from_pretrained(tmp_path / "run" / "checkpoint").planner
    image = np.full((48, 64, 3), 90, np.uint8)
    plans = [p.plan([[image]], ["put the red cube in the blue bowl"]) for p in (trained, loaded)]
    torch.testing.assert_close(plans[0].hidden_states, plans[1].hidden_states)
    names = [name for name, _ in trained.named_parameters() if ".lora_B." in name]
    assert names and any(trained.get_parameter(name).any() for name in names)


def test_training_goes_on_from_a_checkpoint(stage: Stage, start: Path, data: Path) -> None:
    objective = small_job(start, data, start.parent / "run")._stage2(Share(0))
    before = stage.policy.state_dict()
    module: Any = objective.module
    for name, tensor in module.policy.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, msg=name)


def test_fine_tuning_teaches_the_names_of_other_things(
    start: Path, data: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "fruit"
    with EpisodeWriter(renamed, fps=5, robot_type="widowx_250s") as writer:
        for seed in range(2):
            names = ("quince", "blue bowl", "green ball")
            writer.write(
                replace(episode(seed), objects=names, pick="quince", instruction="take the quince")
            )
    known = re.search("start: ([^,]+),", start.read_text())
    assert known is not None
    path = write_recipe(tmp_path, RECIPE.replace("nano,", f"nano, start: {known[1]},"))
    changes = ("stage1.loop.steps=2", "stage1.loop.pictures_every=0")
    recipe, folders = with_data(load_recipe(path, changes), [str(renamed)])
    assert Job(recipe, Options(tmp_path / "run", folders, threads=1), ("stage1",)).run()
    tuned = Policy.from_pretrained(tmp_path / "run" / "stage1" / "checkpoint")
    assert len(tuned.tokenizer.tokenize("quince")) == len(tuned.tokenizer.tokenize(" quince")) == 1


def test_a_large_policy_starts_from_its_pre_trained_parts(policy: Policy, tmp_path: Path) -> None:
    settings = policy.config
    qwen = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**settings.planner.qwen))
    vision = Dinov2Model(Dinov2Config(**settings.vision.dinov2))
    qwen.save_pretrained(tmp_path / "qwen")
    policy.tokenizer.save_pretrained(tmp_path / "qwen")
    vision.save_pretrained(tmp_path / "dino")
    config = ModelConfig("tiny", planner=str(tmp_path / "qwen"), vision=str(tmp_path / "dino"))
    with pytest.raises(TrainingError, match=r"set model\.planner"):
        new_policy(replace(config, vision=""), None, (), {}, 0)
    started = new_policy(config, None, (), {}, 0)
    for part, source in (
        (started.planner.vlm, qwen),
        (started.actor.vision_expert.body, vision),
    ):
        wanted = source.state_dict()
        for name, tensor in part.state_dict().items():
            torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=0, msg=name)
    assert (
        started.config.qformer.start_layer
        == settings.planner.qwen["text_config"]["num_hidden_layers"]
    )


def test_bf16_trains(start: Path, data: Path, tmp_path: Path) -> None:
    changes = ("model.precision=bf16", "stage2.loop.steps=1", "stage2.action.batch_size=2")
    assert small_job(start, data, tmp_path / "run", changes).run()
    (line,) = metrics(tmp_path / "run" / "stage2")
    assert np.isfinite(line["loss"]) and np.isfinite(line["grad_norm"])


def test_a_job_stops_when_its_time_is_over(start: Path, data: Path, tmp_path: Path) -> None:
    # Each call stores the views of one episode at least, then trains.
    calls = 0
    while not small_job(start, data, tmp_path / "run", resume=True, stop_after=0.0).run():
        calls += 1
        if (tmp_path / "run" / "views" / "squares" / "wrist_128.json").is_file():
            break
    assert calls >= 1
    assert not list((tmp_path / "run").rglob("manifest.json"))


def test_a_finished_run_is_not_begun_again(start: Path, data: Path, whole: Path) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        small_job(start, data, whole).run()
    states = sorted(whole.rglob("manifest.json"))
    written = [path.stat().st_mtime_ns for path in states]
    assert small_job(start, data, whole, resume=True).run()
    assert [path.stat().st_mtime_ns for path in states] == written


# Whole processes.


def command(recipe: Path, data: Path, out: Path, *more: str) -> list[str]:
    """`internvla train` of stage 2 in a process of its own."""
    train = ["-m", "internvla_ros.train", str(recipe), "--data", str(data), "--out", str(out)]
    return [sys.executable, *train, "--stage", "2", "--device", "cpu", "--threads", "1", *more]


@pytest.mark.integration
def test_a_killed_run_goes_on_bit_by_bit(
    start: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(start, data, killed, "--workers", "1"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    lines = killed / "stage2" / "metrics.jsonl"
    limit = time.monotonic() + 180
    while not lines.is_file() or len(lines.read_text().splitlines()) < 3:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "stage2" / "done").exists()
    small_job(start, data, killed, resume=True).run()
    assert metrics(killed / "stage2") == metrics(whole / "stage2")
    ours, theirs = (
        Policy.from_pretrained(folder / "stage2" / "checkpoint").state_dict()
        for folder in (killed, whole)
    )
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.integration
def test_two_processes_train_as_one_with_twice_the_batch(
    start: Path, data: Path, tmp_path: Path
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    both = command(start, data, tmp_path / "both", "--workers", "0")[1:]
    steps = "stage2.loop.steps=2"
    subprocess.run([*launch, *both, "--set", steps], check=True, capture_output=True, timeout=240)
    doubled = (
        steps,
        "stage2.action.batch_size=8",
        "stage2.action.draft_batch_size=16",
        "stage2.grounding_batch_size=4",
    )
    small_job(start, data, tmp_path / "one", doubled).run()
    ours, theirs = (metrics(tmp_path / name / "stage2") for name in ("both", "one"))
    assert len(ours) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=2e-4)
