"""Shows what the robot thinks: annotated pictures, markers in space, the robot and its frames."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from internvla_ros.control.chunk import Chunk, fault, integrate
from internvla_ros.motion.se3 import Pose
from internvla_ros.msg import ActionChunk, CameraViews, ExecutionState, SpatialPrediction
from internvla_ros.nodes.annotations import detections, image_annotations, messages_of
from internvla_ros.nodes.camera_poses import CameraPoses, DescribedPoses, TfPoses
from internvla_ros.nodes.converters import (
    ConversionError,
    image_to_rgb,
    message_to_chunk,
    prediction_to_answer,
    rgb_to_image,
)
from internvla_ros.nodes.diagnostics import OK, WARN, Diagnostics, Health
from internvla_ros.nodes.joints import JointHistory, JointReader, JointStateError
from internvla_ros.nodes.lifting import Surface, camera_of, depth_in_metres, lift
from internvla_ros.nodes.markers import MarkerMaker
from internvla_ros.nodes.overlay import Overlay
from internvla_ros.nodes.pacing import RateLimit, RateMeter
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN, SENSOR_OUT
from internvla_ros.nodes.robot_state import RobotState
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.spatial.projection import ProjectionError, View

_LOOK = 0.5  # s between two looks at who is listening
_MARKER_LIFE = 1.0  # s that a marker stays when none follows
_TOLERANCE = 0.15  # s between a picture and the joint state that goes with it
_TEXT_ABOVE = 0.08  # m, the state above the workspace


@dataclass(frozen=True)
class MarkerConfig:
    """Parameters of marker_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    rate: float = setting(
        10.0, "Hz, annotated pictures at most so often", minimum=0.1, maximum=60.0
    )
    marker_rate: float = setting(5.0, "Hz, markers", minimum=0.1, maximum=50.0)
    jpeg_quality: int = setting(80, "of the compressed pictures", minimum=1, maximum=100)
    max_age: float = setting(5.0, "s for which a prediction is shown", minimum=0.1, maximum=600.0)
    trace_fade: float = setting(8.0, "s in which a trace fades away", minimum=0.1, maximum=600.0)
    lift: str = setting(
        "plane", "points into space by the table's plane or by depth", choices=("plane", "depth")
    )
    camera_poses: str = setting(
        "description", "from the robot's description or from TF", choices=("description", "tf")
    )
    robot_state: bool = setting(
        True, "publish robot_description and the links' frames; false where a driver does"
    )
    frame_rate: float = setting(20.0, "Hz, frames of moving links", minimum=1.0, maximum=100.0)


class MarkerNode(Node):
    """Listens only. Pictures and markers are made while somebody looks at them."""

    def __init__(self) -> None:
        super().__init__("markers")
        self._config = config = declare(self, MarkerConfig)
        self._robot = load_embodiment(config.robot)
        description = urdf(self._robot.name)
        self._poses: CameraPoses = (
            TfPoses(self, self._robot)
            if config.camera_poses == "tf"
            else DescribedPoses(self._robot, description)
        )
        self._state_out = RobotState(
            self,
            self._robot,
            description,
            links=config.robot_state,
            rate=config.frame_rate,
        )
        self._overlay = Overlay(config.max_age, config.trace_fade)
        self._maker = MarkerMaker(self._robot.base_frame, _MARKER_LIFE)
        self._reader, self._history = JointReader(self._robot), JointHistory()
        self._limit = RateLimit(config.rate)
        self._planner, self._actor, self._drawn = (RateMeter(window=5.0) for _ in range(3))
        self._instruction = self._status = ""
        self._infos: dict[str, CameraInfo] = {}
        self._depths: dict[str, NDArray[np.float64]] = {}
        self._prediction: SpatialPrediction | None = None
        self._chunks: dict[int, Chunk] = {}
        self._tips: deque[tuple[float, Pose]] = deque(maxlen=64)
        self._state: ExecutionState | None = None
        self._problem = ""
        self._views_in: Subscription | None = None
        self._publish_here()
        self._listen()
        self.create_timer(_LOOK, self._look)
        self.create_timer(1.0 / config.marker_rate, self._publish_markers)
        self._diagnostics = Diagnostics(self, self._health)

    def _publish_here(self) -> None:
        cameras = [camera.name for camera in self._robot.cameras]
        self._image_out = {
            name: self.create_publisher(Image, f"{name}/annotated", SENSOR_OUT) for name in cameras
        }
        self._jpeg_out = {
            name: self.create_publisher(CompressedImage, f"{name}/annotated/compressed", SENSOR_OUT)
            for name in cameras
        }
        self._markers_out = self.create_publisher(MarkerArray, "markers", NEWEST)
        self._vision, self._foxglove = messages_of("vision_msgs"), messages_of("foxglove_msgs")
        if self._vision is not None:
            self._detections_out = self.create_publisher(
                self._vision.Detection2DArray, "detections", EVENTS
            )
        if self._foxglove is not None:
            kind = self._foxglove.ImageAnnotations
            self._annotations_out = {
                name: self.create_publisher(kind, f"{name}/annotations", EVENTS) for name in cameras
            }

    def _listen(self) -> None:
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_subscription(
            SpatialPrediction, "spatial_prediction", self._on_prediction, EVENTS
        )
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST)
        self.create_subscription(ExecutionState, "execution_state", self._on_state, EVENTS)
        self.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)
        for camera in self._robot.cameras:
            self._listen_to(camera.name)

    def _listen_to(self, camera: str) -> None:
        def on_info(message: CameraInfo) -> None:
            self._infos[camera] = message

        def on_depth(message: Image) -> None:
            try:
                self._depths[camera] = depth_in_metres(message)
            except ConversionError as error:
                self._complain(str(error))

        self.create_subscription(CameraInfo, f"{camera}/camera_info", on_info, SENSOR_IN)
        if self._config.lift == "depth":
            self.create_subscription(
                Image, f"{camera}/depth/image_raw", on_depth, qos_profile_sensor_data
            )

    def _look(self) -> None:
        """Take pictures in only while somebody wants them, and renew the status line."""
        now = self._now()
        rates = f"planner {self._planner.rate(now):.1f} Hz  actor {self._actor.rate(now):.1f} Hz"
        self._status = rates if self._instruction else ""
        publishers = [*self._image_out.values(), *self._jpeg_out.values()]
        wanted = any(each.get_subscription_count() for each in publishers)
        if wanted and self._views_in is None:
            self._views_in = self.create_subscription(
                CameraViews, "camera_views", self._on_views, NEWEST
            )
        elif not wanted and self._views_in is not None:
            self.destroy_subscription(self._views_in)
            self._views_in = None

    def _on_instruction(self, message: String) -> None:
        self._instruction = " ".join(message.data.split())
        self._overlay.clear()
        self._prediction = None
        self._chunks.clear()

    def _on_prediction(self, message: SpatialPrediction) -> None:
        now = self._now()
        self._planner.tick(now)
        if " ".join(message.instruction.split()) != self._instruction:
            return  # on its way while the instruction changed
        self._prediction = message
        size = (int(message.width), int(message.height))
        self._overlay.add(message.camera, prediction_to_answer(message), size, now)
        if self._vision is not None:
            self._detections_out.publish(detections(message, self._vision))
        if self._foxglove is not None and message.camera in self._annotations_out:
            annotations = image_annotations(message, self._foxglove)
            self._annotations_out[message.camera].publish(annotations)

    def _on_chunk(self, message: ActionChunk) -> None:
        self._actor.tick(self._now())
        try:
            chunk = message_to_chunk(message)
        except ConversionError as error:
            self._complain(str(error))
            return
        if not fault(chunk):
            self._chunks[chunk.sequence] = chunk
        while len(self._chunks) > 16:
            del self._chunks[min(self._chunks)]

    def _on_state(self, message: ExecutionState) -> None:
        self._state = message
        measured = self._robot.action.anchor == "measured"
        tip = message.measured if measured else message.commanded
        if tip.header.frame_id:
            at, turn = tip.pose.position, tip.pose.orientation
            pose = Pose.from_quaternion([at.x, at.y, at.z], [turn.x, turn.y, turn.z, turn.w])
            self._tips.append((seconds(message.header.stamp), pose))

    def _on_joints(self, message: JointState) -> None:
        self._state_out.joints(message)
        try:
            stamp = seconds(message.header.stamp)
            reading = self._reader.read(stamp, message.name, message.position)
        except JointStateError as error:
            self._complain(str(error))
            return
        if reading is not None:
            self._history.add(reading)

    def _on_views(self, views: CameraViews) -> None:
        if not self._limit.ready(seconds(views.header.stamp)):
            return
        now = self._now()
        self._drawn.tick(now)
        for name, image in zip(views.names, views.images, strict=False):
            if name not in self._image_out:
                continue
            try:
                self._publish_picture(name, image, now)
            except ConversionError as error:
                self._complain(f"camera {name}: {error}")

    def _publish_picture(self, camera: str, image: Image, now: float) -> None:
        raw, jpeg = self._image_out[camera], self._jpeg_out[camera]
        wants_raw, wants_jpeg = raw.get_subscription_count(), jpeg.get_subscription_count()
        if not wants_raw and not wants_jpeg:
            return
        caption = self._instruction or "no instruction"
        drawn = self._overlay.draw(camera, image_to_rgb(image), caption, self._status, now)
        if wants_raw:
            raw.publish(rgb_to_image(drawn, image.header))
        if wants_jpeg:
            jpeg.publish(_compressed(drawn, image, self._config.jpeg_quality))

    def _publish_markers(self) -> None:
        if not self._markers_out.get_subscription_count():
            return
        lower, upper = self._robot.workspace
        markers = [self._maker.workspace(lower, upper)]
        if self._state is not None:
            above = np.array([lower[0], (lower[1] + upper[1]) / 2, upper[2] + _TEXT_ABOVE])
            markers.append(self._maker.state(self._state, above))
        markers += self._prediction_markers()
        markers += self._chunk_markers()
        self._markers_out.publish(MarkerArray(markers=markers))

    def _prediction_markers(self) -> list[Marker]:
        message = self._prediction
        if message is None:
            return []
        answer = self._overlay.answer(message.camera, self._now())
        view = self._view(message)
        if answer is None or view is None:
            return []
        surface = Surface(self._robot.tabletop.height, self._depths.get(message.camera))
        return self._maker.prediction(answer, lift(answer, view, surface))

    def _view(self, message: SpatialPrediction) -> View | None:
        """The camera of a prediction where it was when its picture was taken; None: not known."""
        info = self._infos.get(message.camera)
        stamp = seconds(message.header.stamp)
        reading = self._history.at(stamp, _TOLERANCE)
        joints = reading.positions if reading is not None else None
        pose = self._poses.pose(message.camera, stamp, joints)
        if info is None or pose is None:
            return None
        try:
            return View(camera_of(info, int(message.width), int(message.height)), pose)
        except ProjectionError as error:
            self._complain(f"camera {message.camera}: {error}")
            return None

    def _chunk_markers(self) -> list[Marker]:
        """The path of the chunk in execution, from where the tip was to be at its stamp."""
        state = self._state
        if state is None or state.state != ExecutionState.RUNNING:
            return []
        chunk = self._chunks.get(int(state.chunk_sequence))
        if chunk is None or not self._tips:
            return []
        _, anchor = min(self._tips, key=lambda tip: abs(tip[0] - chunk.stamp))
        poses = integrate(anchor, chunk.actions, self._robot.action)
        return self._maker.chunk(poses, chunk.actions[:, 6])

    def _complain(self, words: str) -> None:
        self._problem = words
        self.get_logger().error(words, throttle_duration_sec=5.0)

    def _health(self) -> Health:
        values = {"pictures": f"{self._drawn.rate(self._now()):.1f}"}
        problem, self._problem = self._problem, ""
        looked_at = "drawing" if self._views_in is not None else "nobody looks"
        return Health(WARN if problem else OK, problem or looked_at, values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


def _compressed(picture: NDArray[np.uint8], source: Image, quality: int) -> CompressedImage:
    """A picture uint8 [h, w, 3] RGB as a JPEG message with the header of its source."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
    if not done:
        raise ConversionError(f"OpenCV makes no JPEG of a picture {list(picture.shape)}")
    message: Any = CompressedImage(header=source.header, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(data.tobytes())
    return message


def main() -> int:
    """Run marker_node."""
    return run(MarkerNode)


if __name__ == "__main__":
    sys.exit(main())
