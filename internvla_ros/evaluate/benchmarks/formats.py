"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.evaluate.benchmarks.sample import Benchmark, BenchmarkError

OWN = "internvla"
FORMATS = {
    OWN: "episodes of our data engine",
    "llava": "LLaVA-style conversations",
    "interndata": "episodes of InternData-M1",
    "refcocog": "RefCOCO-g (and RefCOCO, RefCOCO+)",
    "roborefit": "RoboRefIt",
    "where2place": "Where2Place",
    "a0": "A0's trajectories in ManiSkill",
}


def open_benchmark(
    name: str, root: Path, split: str | None = None, cameras: tuple[str, ...] = ()
) -> Benchmark:
    """A benchmark that lies in a folder.

    Args:
        name: a key of `FORMATS`.
        root: its folder.
        split: part of it; None for the usual one.
        cameras: that the policy looks at, for our own episodes.

    Raises:
        BenchmarkError: it is missing, damaged, empty, or has no such split.
    """
    if name in (OWN, "interndata") and split is not None:
        raise BenchmarkError(f"data sets of the format {name!r} have no splits")
    try:
        found = _reader(name, cameras)(root, split)
    except DatasetError as error:
        raise BenchmarkError(str(error)) from error
    if not len(found):
        raise BenchmarkError(f"{root} has no question in it")
    return found


def _reader(name: str, cameras: tuple[str, ...]) -> Callable[[Path, str | None], Benchmark]:
    if name == OWN:
        from internvla_ros.evaluate.benchmarks.episodes import TaskFrames

        return lambda root, split: TaskFrames(root, cameras)
    if name == "interndata":
        from internvla_ros.evaluate.benchmarks.episodes import InternFrames

        return lambda root, split: InternFrames(root)
    if name == "llava":
        from internvla_ros.evaluate.benchmarks.conversations import open_llava

        return open_llava
    if name == "refcocog":
        from internvla_ros.evaluate.benchmarks.refcocog import open_refcocog

        return open_refcocog
    if name == "roborefit":
        from internvla_ros.evaluate.benchmarks.roborefit import open_roborefit

        return open_roborefit
    if name == "where2place":
        from internvla_ros.evaluate.benchmarks.where2place import open_where2place

        return open_where2place
    if name == "a0":
        from internvla_ros.evaluate.benchmarks.a0 import open_a0

        return open_a0
    raise BenchmarkError(f"no format {name!r}; there are {', '.join(FORMATS)}")
