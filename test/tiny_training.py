"""A small annotated data set and a recipe that trains on it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot import EpisodeWriter

OBJECTS = ("red cube", "blue bowl", "green ball")
COLOURS = ((220, 30, 30), (40, 60, 220), (30, 180, 60))

RECIPE = """\
name: tiny
model: {size: nano, cameras: [front, wrist]}
data: {sets: []}
stage1:
  loop: {steps: 6, warmup_steps: 2, decay: cosine, log_every: 1, save_every: 2, pictures_every: 4}
  batch_size: 4
  learning_rate: 0.001
actor:
  loop: {steps: 4, warmup_steps: 1, log_every: 1, save_every: 2, ema_decay: 0.9}
  action: {batch_size: 4, condition_dropout: 1.0, repeated_diffusion_steps: 2, draft_batch_size: 8}
  grounding_batch_size: 0
stage2:
  loop: {steps: 6, warmup_steps: 2, decay: cosine, log_every: 1, save_every: 2, ema_decay: 0.9}
  action: {batch_size: 4, condition_dropout: 0.5, repeated_diffusion_steps: 2, draft_batch_size: 8}
  grounding_batch_size: 2
"""


def episode(seed: int, frames: int = 6) -> Episode:
    """Three squares on grey that move a little."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 24, (len(OBJECTS), 2)) + np.array([[0, 0], [32, 0], [0, 24]])
    boxes = np.empty((frames, len(OBJECTS), 4), np.float32)
    front = np.full((frames, 48, 64, 3), 120, np.uint8)
    for t in range(frames):
        for index, (x, y) in enumerate(corners + t // 2):
            x, y = min(int(x), 52), min(int(y), 36)
            front[t, y : y + 12, x : x + 12] = COLOURS[index]
            boxes[t, index] = (x, y, x + 12, y + 12)
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    return Episode(
        images={"front": front, "wrist": np.ascontiguousarray(front[:, :, ::-1])},
        state=rng.normal(size=(frames, 10)),
        action=np.hstack([rng.normal(0, 0.01, (frames, 6)), rng.integers(0, 2, (frames, 1))]),
        boxes=boxes,
        pick_point=middles[:, 0],
        place_point=middles[:, 1],
        tip_pixel=np.cumsum(rng.uniform(0, 3, (frames, 2)), axis=0),
        timestamps=np.arange(frames) * 0.2,
        instruction="put the red cube in the blue bowl",
        pick="red cube",
        place="blue bowl",
        relation="in",
        objects=OBJECTS,
        seed=seed,
        success=True,
    )


def write_data(folder: Path, seeds: range = range(3)) -> Path:
    """A LeRobot data set of the episodes of these seeds."""
    with EpisodeWriter(folder, fps=5, robot_type="widowx_250s") as writer:
        for seed in seeds:
            writer.write(episode(seed))
    return folder


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe as a file."""
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path
