"""LIBERO's own demonstration files, made here as they are published, and policies for LIBERO."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros import cli
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.reader import LeRobotDataset
from internvla_ros.data.normalisation import DatasetStatistics, compute, write_statistics
from internvla_ros.evaluate.libero.demonstrations import read_hdf5
from internvla_ros.evaluate.libero.policies import (
    CheckpointPolicy,
    ServedPolicy,
    chosen_statistics,
    load_policy,
)
from internvla_ros.evaluate.libero.trial import Trial
from internvla_ros.evaluate.policies import PolicyError
from internvla_ros.motion.se3 import rot6d, rotvec_to_matrix

h5py = pytest.importorskip("h5py", reason="LIBERO's files are HDF5: pip install h5py")

Array = NDArray[np.float64]
INSTRUCTION = "pick up the milk and place it in the basket"


def write_hdf5(path: Path, lengths: dict[str, int]) -> None:
    """A demonstration file in LIBERO's layout, with one white pixel in the pictures' corner."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": INSTRUCTION})
        for name, count in lengths.items():
            demo = data.create_group(name)
            actions = np.zeros((count, 7))
            actions[:, 0], actions[:, 6] = 0.5, np.where(np.arange(count) < 2, -1.0, 1.0)
            demo["actions"] = actions
            seen = demo.create_group("obs")
            picture = np.zeros((count, 128, 128, 3), np.uint8)
            picture[:, 0, 0] = 255
            seen["agentview_rgb"], seen["eye_in_hand_rgb"] = picture, picture // 2
            seen["ee_pos"] = np.tile([0.1, 0.2, 1.0], (count, 1))
            seen["ee_ori"] = np.tile([np.pi, 0.0, 0.0], (count, 1))
            seen["gripper_states"] = np.tile([0.04, -0.04], (count, 1))


def test_published_demonstrations_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pick_up_the_milk_demo.hdf5"
    write_hdf5(path, {"demo_10": 3, "demo_2": 5})
    first, second = read_hdf5(path)
    assert (len(first), len(second)) == (5, 3)  # by number, not by name
    assert first.seed != second.seed
    assert first.instruction == INSTRUCTION and first.success
    assert first.images["front"][0, -1, -1].tolist() == [255] * 3
    assert first.images["wrist"][0, -1, -1].tolist() == [127] * 3
    assert first.action[:, 6].tolist() == [1, 1, 0, 0, 0]
    assert first.action[0, :6].tolist() == [0.5, 0, 0, 0, 0, 0]
    turn = rot6d(rotvec_to_matrix([np.pi, 0.0, 0.0]))
    assert np.allclose(first.state[0], [0.1, 0.2, 1.0, *turn, 1.0])
    assert np.isnan(first.boxes).all()


def test_the_command_makes_a_dataset_and_can_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "milk_demo.hdf5"
    write_hdf5(path, {"demo_0": 4, "demo_1": 4})
    for added in (2, 0):
        assert cli.main(["import-libero", str(path), "--out", str(tmp_path / "out")]) == 0
        assert f"{added} demonstrations added" in capsys.readouterr().out
    dataset = LeRobotDataset(tmp_path / "out")
    assert len(dataset) == 2 and dataset.load(1).instruction == INSTRUCTION


def test_other_files_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "other.hdf5"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DatasetError, match=r"other.hdf5 is no demonstration file of LIBERO"):
        list(read_hdf5(path))


def test_a_missing_h5py_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert cli.main(["import-libero", "any.hdf5", "--out", str(tmp_path / "out")]) == 2
    assert "needs h5py: pip install" in capsys.readouterr().err


def begun() -> Trial:
    trial = Trial(0, 0, "adaptive", 3)
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[0, 0] = 255
    trial.observe(
        {
            "instruction": INSTRUCTION,
            "base": np.array([-0.6, 0.0, 0.0]),
            "success": False,
            "images": [picture, picture],
            "tip": np.array([0.1, 0.0, 0.2]),
            "rotation": np.eye(3),
            "opening": 1.0,
        }
    )
    return trial


class Model:
    """What is used of a policy; remembers what it was asked."""

    def __init__(self, points: int, state: int, views: tuple[int, int]) -> None:
        actor = SimpleNamespace(num_points=points, state_dim=state)
        planner, vision = (SimpleNamespace(views=count) for count in views)
        self.config = SimpleNamespace(actor=actor, planner=planner, vision=vision)
        self.asked: dict[str, Any] = {}

    def plan(self, images: Any, instructions: list[str]) -> str:
        self.asked |= {"images": images, "instructions": instructions}
        return "plan"

    def look(self, images: Any, instructions: list[str]) -> tuple[str, list[Any]]:
        points = [SimpleNamespace(x=64.0, y=128.0), SimpleNamespace(x=256.0, y=0.0)]
        return self.plan(images, instructions), [SimpleNamespace(points=points)] * len(images)

    def act(self, images: Any, plan: str, states: Any, points: Any, *, unnorm_key: Any) -> Array:
        self.asked |= {"states": states, "points": points, "key": unnorm_key}
        return np.zeros((len(images), 8, 7), np.float32)


def test_a_released_checkpoint_is_shown_its_views_and_told_its_key() -> None:
    model = Model(points=0, state=0, views=(2, 1))
    policy = CheckpointPolicy(model, "franka")
    assert policy.views == 2
    (chunk,) = policy.decide([begun()])
    assert chunk.shape == (8, 7) and chunk.dtype == np.float64
    assert model.asked["instructions"] == [INSTRUCTION] and model.asked["key"] == "franka"
    assert [view[-1, -1, 0] for view in model.asked["images"][0]] == [255, 255]
    assert model.asked["states"] is None and model.asked["points"] is None


def test_a_policy_with_points_and_state_is_given_both() -> None:
    model = Model(points=2, state=10, views=(1, 1))
    policy = CheckpointPolicy(model, None)
    assert policy.views == 1
    policy.decide([begun(), begun()])
    assert model.asked["states"].shape == (2, 10)
    assert model.asked["states"][0, :3] == pytest.approx([0.7, 0.0, 0.2])
    assert model.asked["points"][0].tolist() == [[0.25, 0.5], [1.0, 0.0]]


def test_views_of_all_cameras_are_meant_by_none() -> None:
    assert CheckpointPolicy(Model(0, 0, (0, 1)), None).views == 2


def statistics() -> DatasetStatistics:
    rng = np.random.default_rng(0)
    return DatasetStatistics(action=compute(rng.uniform(-1.0, 1.0, (100, 7))))


def test_chunks_of_a_released_server_are_un_normalised_here() -> None:
    found = statistics()
    normalised = np.linspace(-1.5, 1.5, 56).reshape(1, 8, 7).astype(np.float32)
    asked = {}

    def infer(images: Any, instructions: list[str], *, unnorm_key: str) -> Any:
        asked.update(instructions=instructions, key=unnorm_key)
        return normalised

    policy = ServedPolicy(SimpleNamespace(infer=infer), found, "franka", 2)
    (chunk,) = policy.decide([begun()])
    assert asked == {"instructions": [INSTRUCTION], "key": "franka"}
    assert np.allclose(chunk, found.action.unnormalise(normalised[0]))


def test_the_statistics_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dataset_statistics.json"
    write_statistics(path, {"franka": statistics()})
    assert chosen_statistics(path, None)[1] == "franka"
    write_statistics(path, {"franka": statistics(), "oxe_rt1": statistics()})
    assert chosen_statistics(path, "oxe_rt1")[1] == "oxe_rt1"
    with pytest.raises(PolicyError, match="has statistics of franka, oxe_rt1"):
        chosen_statistics(path, None)


def test_a_dead_policy_server_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("websockets")
    monkeypatch.setattr("internvla_ros.evaluate.libero.policies.CONNECT_PATIENCE", 0.0)
    arguments = ["--suite", "object", "--policy", "ws://127.0.0.1:9", "--out", str(tmp_path / "o")]
    assert cli.main(["evaluate", "libero", *arguments]) == 2
    error = capsys.readouterr().err
    assert "no policy server answers at ws://127.0.0.1:9" in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_server_of_the_released_code_needs_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("internvla_ros.serving.client")
    monkeypatch.setattr(client.PolicyClient, "ping", lambda self: None)
    with pytest.raises(PolicyError, match="--statistics"):
        load_policy("ws://127.0.0.1:9")


def test_a_wrong_suite_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "libero", "--suite", "kitchen"])
    assert ended.value.code == 2
    assert "argument --suite: invalid choice: 'kitchen'" in capsys.readouterr().err
