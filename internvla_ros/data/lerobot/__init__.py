"""LeRobot datasets: parquet columns, videos and metadata, written as v2.1, read as v2.1 and v3.0.

with EpisodeWriter("data/demo", fps=5, cameras=("front", "wrist")) as writer:
    writer.write(episode)
dataset = LeRobotDataset("data/demo")
columns = dataset.episode(0)
front = dataset.frames(0, "front", size=(128, 128))
"""

from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.reader import LeRobotDataset, RecordedEpisode
from internvla_ros.data.lerobot.writer import EpisodeWriter

__all__ = ["DatasetError", "EpisodeWriter", "LeRobotDataset", "RecordedEpisode"]
