"""Training: exact resume, padding past an episode's end, losses that fall."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from internvla_ros.model.chat import IGNORED
from internvla_ros.spatial.types import Turn
from internvla_ros.train.conversations import Conversation, Mixture, grounding_losses
from internvla_ros.train.dense import DenseDetection, Labelled
from internvla_ros.train.frames import EpisodeFrames
from internvla_ros.train.loop import Loop, LoopConfig, Streams, TrainingError
from internvla_ros.train.recipe import RecipeError, load_recipe
from internvla_ros.train.sources import arranged, template_phrases
from internvla_ros.train.stages import new_policy


def regression_loop(folder: Path, steps: int, losses: list[float], stop: int | None = None) -> Loop:
    """A linear network on a noisy target; what it draws depends on the loop's streams."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    config = LoopConfig(steps, warmup_steps=3, cooldown_steps=4, ema_decay=0.9, save_every=5)
    loop = Loop(network, [{"params": list(network.parameters()), "lr": 0.1}], config, folder)

    def step(streams: Streams) -> dict[str, Tensor]:
        if len(losses) == stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=streams.torch)
        noise = torch.as_tensor(streams.numpy.normal(size=(8, 1)), dtype=torch.float32)
        loss = ((network(x) - x.sum(dim=1, keepdim=True) - 0.1 * noise) ** 2).mean()
        losses.append(float(loss.detach()))
        return {"loss": loss}

    loop.resume()
    loop.run(step, lambda network, at: None)
    return loop


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    all_losses: list[float] = []
    whole = regression_loop(tmp_path / "whole", 20, all_losses)
    # The cool-down is tied to the last step, so the first half is stopped by an exception.
    interrupted = tmp_path / "halves"
    first, second = stopped_at(interrupted, 10), []
    resumed = regression_loop(interrupted, 20, second)
    assert first + second == all_losses
    for ours, theirs in zip(whole.best.parameters(), resumed.best.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def stopped_at(folder: Path, count: int) -> list[float]:
    """The losses of the same run, stopped by Ctrl-C before its step number `count`."""
    losses: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        regression_loop(folder, 20, losses, count)
    return losses


def test_a_damaged_state_is_reported(tmp_path: Path) -> None:
    regression_loop(tmp_path, 5, [])
    state = tmp_path / "trainer_state.pt"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(TrainingError, match="cannot resume"):
        regression_loop(tmp_path, 10, [])


def test_metrics_are_json_lines(tmp_path: Path) -> None:
    config = LoopConfig(4, log_every=2)
    network = nn.Linear(1, 1)
    loop = Loop(network, [{"params": list(network.parameters()), "lr": 0.1}], config, tmp_path)
    loop.run(lambda streams: {"loss": network(torch.ones(1)).square().sum()}, lambda n, at: None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"loss", "grad_norm", "lr", "steps_per_s"} <= set(lines[0])


def test_chunks_past_the_end_hold_pose_and_gripper() -> None:
    action = np.arange(35, dtype=np.float32).reshape(5, 7) + 1
    action[:, 6] = [1, 1, 0, 1, 0]
    data = EpisodeFrames(
        views={},
        state=np.zeros((5, 10), np.float32),
        action=action,
        points=np.zeros((5, 2, 2), np.float32),
        first=np.array([0, 0, 0, 3, 3]),
        last=np.array([2, 2, 2, 4, 4]),
        records=(),
        record_of=np.array([0, 0, 0, 1, 1]),
        row_of=np.array([0, 1, 2, 0, 1]),
        stored_size=(4, 4),
    )
    chunks = data.chunks(np.array([1, 3]), 4)
    np.testing.assert_array_equal(chunks[0, :2], action[1:3])
    np.testing.assert_array_equal(chunks[0, 2:, :6], 0)
    np.testing.assert_array_equal(chunks[0, 2:, 6], 0)  # the gripper as it was, closed
    np.testing.assert_array_equal(chunks[1, :2], action[3:5])
    assert data.action[2, 0] == 15  # the data themselves are untouched


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


def test_grounding_losses_fall() -> None:
    policy = new_policy(squares, template_phrases(), {}, seed=0)
    planner = policy.planner
    dense = DenseDetection(
        planner.hidden_dim, planner.merged_grid, (128, 128), ["red cube"], policy.tokenizer
    )
    optimizer = torch.optim.AdamW([*planner.parameters(), *dense.parameters()], lr=2e-3)
    rng, history = np.random.default_rng(0), []
    for _ in range(25):
        losses = grounding_losses(planner, Mixture([(squares, 1.0)]), 4, rng, None, dense)
        optimizer.zero_grad()
        (losses["grounding"] + losses["dense"]).backward()
        optimizer.step()
        history.append([float(losses[k].detach()) for k in ("grounding", "dense")])
    assert (np.mean(history[-5:], axis=0) < 0.5 * np.array(history[0])).all()


def test_only_answers_carry_loss() -> None:
    chat = new_policy(squares, template_phrases(), {}, seed=0).planner.chat_format
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


def test_recipes_are_checked(tmp_path: Path) -> None:
    assert load_recipe("nano").stage2.action.condition_dropout < 1
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe("nonesuch.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("stage1: {loop: {steps: 5}, learning_rat: 1}\n")
    with pytest.raises(RecipeError, match="learning_rat"):
        load_recipe(path)
