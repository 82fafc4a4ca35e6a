"""One episode as a film with overlays and a bag of what a graph would have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from internvla_ros.motion.se3 import Pose
from internvla_ros.recording.bag import Bag, BagError
from internvla_ros.recording.definitions import encode, stamp
from internvla_ros.recording.video import VideoFile
from internvla_ros.robots.embodiment import CameraSpec, Embodiment
from internvla_ros.spatial.draw import annotate
from internvla_ros.spatial.types import SpatialAnswer

Picture = NDArray[np.uint8]

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Moment:
    """What is known when a policy decides.

    Attributes:
        time: s, simulated, since the episode began.
        pictures: uint8 [h, w, 3] RGB by camera.
        answer: what the policy sees where, in px of the first camera's picture; None: nothing.
        actions: [T, 7] the chunk that it sends, in metres and radians, 1 = open.
        joints: positions by joint, arm and fingers, rad or m.
        commanded, measured: poses of the tip in the base frame.
        gripper: opening, 0 closed .. 1 open.
    """

    time: float
    pictures: Mapping[str, Picture]
    answer: SpatialAnswer | None
    actions: NDArray[np.float64]
    joints: Mapping[str, float]
    commanded: Pose
    measured: Pose
    gripper: float


class EpisodeRecorder:
    """Writes NAME.mp4 and NAME.mcap, moment by moment; both can be read however it ends."""

    def __init__(
        self, folder: Path, name: str, embodiment: Embodiment, instruction: str, dt: float
    ) -> None:
        """
        Args:
            folder, name: where the files go; folders are made.
            embodiment: the robot.
            instruction: what is to be done.
            dt: s of one step of a chunk.

        Raises:
            BagError, VideoError: the files cannot be made.
        """
        self._robot, self._instruction, self._dt = embodiment, instruction, dt
        self._sequence = 0
        self._paths = (folder / f"{name}.mp4", folder / f"{name}.mcap")
        first = embodiment.cameras[0]
        rate = max(round(embodiment.policy_rate), 1)
        self._video = VideoFile(self._paths[0], first.width, first.height, rate)
        self._bag = Bag(self._paths[1])

    def add(self, moment: Moment) -> None:
        """Add a moment; raises `BagError` when the disk is full."""
        self._sequence += 1
        first = self._robot.cameras[0]
        picture = moment.pictures[first.name]
        status = f"{moment.time:.1f} s"
        self._video.write(
            annotate(picture, moment.answer, caption=self._instruction, status=status)
        )
        if self._sequence == 1:
            self._write("/instruction", "std_msgs/msg/String", {"data": self._instruction}, moment)
        for camera in self._robot.cameras:
            self._write_camera(camera, moment)
        self._write_joints(moment)
        if moment.answer is not None:
            self._write(
                "/spatial_prediction",
                "internvla_ros/msg/SpatialPrediction",
                self._prediction(moment.answer, moment.time),
                moment,
            )
        self._write("/action_chunk", "internvla_ros/msg/ActionChunk", self._chunk(moment), moment)
        self._write(
            "/execution_state", "internvla_ros/msg/ExecutionState", self._state(moment), moment
        )

    def close(self, outcome: str) -> tuple[Path, Path]:
        """Finish both files and put `outcome`, such as "success", into their names."""
        self._video.close()
        self._bag.close()
        named = [path.with_stem(f"{path.stem}_{outcome}") for path in self._paths]
        for path, new in zip(self._paths, named, strict=True):
            path.replace(new)
        return named[0], named[1]

    def abandon(self) -> None:
        """Finish both files under the names that they have."""
        self._video.close()
        self._bag.close()

    def _write(self, topic: str, typename: str, values: Mapping[str, Any], moment: Moment) -> None:
        self._bag.write(topic, typename, encode(typename, values), moment.time)

    def _write_camera(self, camera: CameraSpec, moment: Moment) -> None:
        header = {"stamp": stamp(moment.time), "frame_id": camera.optical_frame}
        picture = moment.pictures[camera.name]
        self._write(
            f"/{camera.name}/image_raw/compressed",
            "sensor_msgs/msg/CompressedImage",
            {"header": header, "format": "jpeg", "data": jpeg(picture)},
            moment,
        )
        self._write(
            f"/{camera.name}/camera_info",
            "sensor_msgs/msg/CameraInfo",
            {"header": header, **_camera_info(camera, picture.shape[1], picture.shape[0])},
            moment,
        )

    def _write_joints(self, moment: Moment) -> None:
        values = {
            "header": {"stamp": stamp(moment.time)},
            "name": list(moment.joints),
            "position": list(moment.joints.values()),
        }
        self._write("/joint_states", "sensor_msgs/msg/JointState", values, moment)

    def _prediction(self, answer: SpatialAnswer, time: float) -> dict[str, Any]:
        camera = self._robot.cameras[0]
        return {
            "header": {"stamp": stamp(time), "frame_id": camera.optical_frame},
            "camera": camera.name,
            "width": camera.width,
            "height": camera.height,
            "instruction": self._instruction,
            "instruction_sequence": 1,
            "views_sequence": self._sequence,
            "boxes": [
                {
                    "label": box.label,
                    **dict(zip(("x_min", "y_min", "x_max", "y_max"), _corners(box), strict=True)),
                    "score": float(box.score),
                }
                for box in answer.boxes
            ],
            "points": [
                {"label": point.label, "x": float(point.x), "y": float(point.y), "score": 1.0}
                for point in answer.points
            ],
            "traces": [
                {"label": trace.label, "x": trace.points[:, 0], "y": trace.points[:, 1]}
                for trace in answer.traces
            ],
            "text": answer.text,
        }

    def _chunk(self, moment: Moment) -> dict[str, Any]:
        action = self._robot.action
        return {
            "header": {"stamp": stamp(moment.time), "frame_id": self._robot.base_frame},
            "sequence": self._sequence,
            "views_sequence": self._sequence,
            "dt": self._dt,
            "horizon": len(moment.actions),
            "action_dim": moment.actions.shape[1],
            "actions": moment.actions.reshape(-1),
            "delta_frame": action.delta_frame,
            "rotation": action.rotation,
            "instruction": self._instruction,
        }

    def _state(self, moment: Moment) -> dict[str, Any]:
        header = {"stamp": stamp(moment.time), "frame_id": self._robot.base_frame}
        return {
            "header": header,
            "state": 1,  # RUNNING
            "chunk_sequence": self._sequence,
            "commanded": {"header": header, "pose": _pose(moment.commanded)},
            "measured": {"header": header, "pose": _pose(moment.measured)},
            "gripper": moment.gripper,
            "gripper_measured": moment.gripper,
            "tracking_error": float(
                np.linalg.norm(moment.commanded.position - moment.measured.position)
            ),
            "control_rate": self._robot.control_rate,
            "stamp_to_setpoint": -1.0,
        }


def jpeg(picture: Picture) -> bytes:
    """A picture uint8 [h, w, 3] RGB as JPEG; raises `BagError` for one that cannot be one."""
    done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise BagError(f"OpenCV makes no JPEG of a picture {list(picture.shape)}")
    return data.tobytes()


def _camera_info(camera: CameraSpec, width: int, height: int) -> dict[str, Any]:
    k = camera.intrinsics(width, height)
    return {
        "width": width,
        "height": height,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": k.reshape(-1),
        "r": np.eye(3).reshape(-1),
        "p": np.hstack([k, np.zeros((3, 1))]).reshape(-1),
    }


def _corners(box: Any) -> Sequence[float]:
    return [float(value) for value in (box.x1, box.y1, box.x2, box.y2)]


def _pose(pose: Pose) -> dict[str, Any]:
    at, turn = pose.position.tolist(), pose.quaternion().tolist()
    return {
        "position": dict(zip("xyz", at, strict=True)),
        "orientation": dict(zip("xyzw", turn, strict=True)),
    }
