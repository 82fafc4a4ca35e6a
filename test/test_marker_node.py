"""What marker_node shows: pictures with overlays, markers in space, and the messages of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from internvla_ros.msg import (
    ActionChunk,
    Box,
    CameraViews,
    ExecutionState,
    ImagePoint,
    SpatialPrediction,
    Trace,
)
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header, String
from visualization_msgs.msg import Marker, MarkerArray

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.link_tree import LinkTree
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.camera_poses import DescribedPoses
from internvla_ros.nodes.converters import ConversionError, camera_info, image_to_rgb, rgb_to_image
from internvla_ros.nodes.lifting import Surface, camera_of, depth_in_metres, lift
from internvla_ros.nodes.marker_node import MarkerNode
from internvla_ros.nodes.markers import CLOSED, OPEN, MarkerMaker
from internvla_ros.nodes.overlay import Overlay
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_OUT
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import sample_scene
from internvla_ros.sim.world import World
from internvla_ros.spatial.draw import AMBER
from internvla_ros.spatial.projection import View
from internvla_ros.spatial.types import Box as SpatialBox
from internvla_ros.spatial.types import Point, SpatialAnswer
from internvla_ros.spatial.types import Trace as SpatialTrace

ROBOT = load_embodiment("widowx_250s")
FRONT = ROBOT.camera("front")
TASK = "put the red cube on the blue plate"


def front_view() -> View:
    info = camera_info(FRONT.intrinsics(), FRONT.width, FRONT.height, Header())
    pose = DescribedPoses(ROBOT, urdf(ROBOT.name)).pose("front", 0.0, None)
    assert pose is not None
    return View(camera_of(info, FRONT.width, FRONT.height), pose)


def answer() -> SpatialAnswer:
    return SpatialAnswer(
        (SpatialBox(250, 240, 310, 300, "red cube", 0.9),),
        (Point(280, 270), Point(400, 300)),
        (SpatialTrace(np.array([[280.0, 270.0], [330.0, 200.0], [400.0, 300.0]])),),
    )


def test_cameras_stand_where_the_simulator_has_them() -> None:
    world = World(ROBOT)
    world.reset(sample_scene(np.random.default_rng(5), ROBOT))
    poses = DescribedPoses(ROBOT, urdf(ROBOT.name))
    for camera in ROBOT.cameras:
        found = poses.pose(camera.name, 0.0, world.joint_positions)
        expected = world.camera_pose(camera.name)
        assert found is not None
        np.testing.assert_allclose(found.position, expected.position, atol=1e-4)
        np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-3)
    assert poses.pose("wrist", 0.0, None) is None
    assert poses.pose("other", 0.0, world.joint_positions) is None
    world.close()


def test_a_place_in_the_scene_drawn_through_camera_info_lands_within_a_pixel() -> None:
    """The top of a real object, projected through the message, against the simulator's own."""
    world = World(ROBOT)
    world.reset(sample_scene(np.random.default_rng(8), ROBOT))
    place = world.object_position(world.scene.task.pick)[None]
    shown = world.project(place, "front", FRONT.width, FRONT.height)
    np.testing.assert_allclose(front_view().project(place), shown, atol=1.0)
    world.close()


def test_lifting_by_plane_and_by_depth() -> None:
    view = front_view()
    flat = lift(answer(), view, Surface(0.0))
    np.testing.assert_allclose(flat.points[:, 2], 0.0, atol=1e-9)
    for trace, pixels in zip(flat.traces, answer().traces, strict=True):
        np.testing.assert_allclose(view.project(trace), pixels.points, atol=1e-6)
    depth = np.zeros((FRONT.height, FRONT.width))
    depth[260:280, 270:290] = 0.6  # something stands where the first point is; a hole elsewhere
    deep = lift(answer(), view, Surface(0.0, depth))
    np.testing.assert_allclose(view.project(deep.points), [[280, 270], [400, 300]], atol=1e-6)
    local = (deep.points - view.pose.position) @ view.pose.rotation
    assert local[0, 2] == pytest.approx(0.6)
    np.testing.assert_allclose(deep.points[1], flat.points[1])


@pytest.mark.parametrize(
    ("encoding", "dtype", "stored", "bigendian"),
    [("16UC1", "<u2", 1250, 0), ("16UC1", ">u2", 1250, 1), ("32FC1", "<f4", 1.25, 0)],
)
def test_depth_images_in_metres(encoding: str, dtype: str, stored: float, bigendian: int) -> None:
    values = np.full((3, 4), stored, dtype)
    padded = np.zeros((3, 4 * values.itemsize + 5), np.uint8)
    padded[:, : 4 * values.itemsize] = values.view(np.uint8)
    message = Image(height=3, width=4, step=padded.shape[1], encoding=encoding)
    message.is_bigendian = bigendian
    message.data.frombytes(padded.tobytes())
    np.testing.assert_allclose(depth_in_metres(message), np.full((3, 4), 1.25))
    message.height = 4
    with pytest.raises(ConversionError, match="do not fit"):
        depth_in_metres(message)
    message.encoding = "rgb8"
    with pytest.raises(ConversionError, match="'rgb8' is not supported; use 16UC1"):
        depth_in_metres(message)


def test_markers_of_a_prediction_and_of_a_chunk() -> None:
    maker = MarkerMaker("base_link", 1.0)
    view = front_view()
    markers = maker.prediction(answer(), lift(answer(), view, Surface(0.0)))
    kinds = [marker.ns for marker in markers]
    assert sorted(kinds) == ["boxes", "labels", "points", "points", "rays", "rays", "traces"]
    assert len({(marker.ns, marker.id) for marker in markers}) == len(markers)
    assert {marker.header.frame_id for marker in markers} == {"base_link"}
    (trace,) = (marker for marker in markers if marker.ns == "traces")
    assert len(trace.points) == len(trace.colors) == 3
    poses = [Pose(np.array([0.2 + 0.01 * step, 0.0, 0.1]), np.eye(3)) for step in range(5)]
    line, steps = maker.chunk(poses, np.array([1.0, 1.0, 0.0, 0.0]))
    assert (line.type, steps.type) == (Marker.LINE_STRIP, Marker.SPHERE_LIST)
    assert len(line.points) == len(line.colors) == 5
    shown = [tuple(round(255 * v) for v in (c.r, c.g, c.b)) for c in line.colors]
    assert shown == [OPEN, OPEN, OPEN, CLOSED, CLOSED]


def test_what_has_no_place_has_a_ray_or_nothing() -> None:
    """A point above the horizon of the table has a ray without an end; its box is left out."""
    view = front_view()
    sky = view.camera.project([[0.0, -0.9, 0.1]])[0]
    x, y = float(sky[0]), float(sky[1])
    high = SpatialAnswer((SpatialBox(x, y, x + 5, y + 5, "bird"),), (Point(x, y),))
    markers = MarkerMaker("base_link", 1.0).prediction(high, lift(high, view, Surface(0.0)))
    assert [marker.ns for marker in markers] == ["rays"]


def test_the_workspace_is_a_box_and_the_state_is_said() -> None:
    lower, upper = ROBOT.workspace
    maker = MarkerMaker("base_link", 1.0)
    edges = np.array([(p.x, p.y, p.z) for p in maker.workspace(lower, upper).points])
    assert edges.shape == (24, 3)
    np.testing.assert_allclose(edges.min(axis=0), lower)
    np.testing.assert_allclose(edges.max(axis=0), upper)
    lengths = np.abs(edges[0::2] - edges[1::2])
    assert ((lengths > 0).sum(axis=1) == 1).all()
    state = ExecutionState(state=ExecutionState.STOPPED, reason="on request")
    assert maker.state(state, np.zeros(3)).text == "STOPPED: on request"


def test_predictions_grow_old() -> None:
    overlay = Overlay(max_age=2.0, trace_fade=4.0)
    picture = np.full((480, 640, 3), 90, np.uint8)
    overlay.add("front", answer(), (640, 480), 10.0)
    fresh = overlay.draw("front", picture, "", "", 10.0)
    assert (fresh != picture).any()
    np.testing.assert_array_equal(overlay.draw("wrist", picture, "", "", 10.0), picture)
    no_trace = SpatialAnswer(answer().boxes, answer().points)
    overlay.add("front", no_trace, (640, 480), 11.5)
    assert overlay.answer("front", 11.5) == answer()  # the last trace stays
    assert overlay.answer("front", 13.6) is None
    overlay.add("front", no_trace, (640, 480), 15.0)
    assert overlay.answer("front", 15.0) == no_trace  # it has faded
    overlay.clear()
    np.testing.assert_array_equal(overlay.draw("front", picture, "", "", 15.0), picture)


def test_links_stand_as_kinematics_says() -> None:
    tree = LinkTree(urdf(ROBOT.name))
    q = np.array([0.3, -0.4, 0.2, 0.5, -0.6, 0.7])
    fingers = dict.fromkeys(ROBOT.gripper.joints, 0.02)
    placements = tree.placements({**dict(zip(ROBOT.joints, q, strict=True)), **fingers})
    poses = {ROBOT.base_frame: Pose.identity()}
    for link, placement in zip(tree.links, placements, strict=True):
        if link.parent in poses:
            poses[link.name] = poses[link.parent] @ placement
    tip = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame).forward(q)
    np.testing.assert_allclose(poses[ROBOT.tip_frame].matrix(), tip.matrix(), atol=1e-9)
    assert len({link.name for link in tree.links}) == len(tree.links)


class Graph:
    """marker_node and what stands around it, in one process."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = MarkerNode()
        self.other = rclpy.create_node("other")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self.other)
        self.heard: dict[str, list[Any]] = {}
        make = self.other.create_publisher
        self.instruction = make(String, "instruction", LATCHED)
        self.prediction = make(SpatialPrediction, "spatial_prediction", EVENTS)
        self.chunk = make(ActionChunk, "action_chunk", NEWEST)
        self.state = make(ExecutionState, "execution_state", EVENTS)
        self.joints = make(JointState, "joint_states", SENSOR_OUT)
        self.info = make(CameraInfo, "front/camera_info", SENSOR_OUT)
        self.views = make(CameraViews, "camera_views", NEWEST)

    def hear(self, kind: type, topic: str, qos: Any) -> None:
        heard = self.heard.setdefault(topic, [])
        self.other.create_subscription(kind, topic, heard.append, qos)

    def until(self, done: Callable[[], object], again: Callable[[], None]) -> None:
        """Say `again` until something is true."""
        clock = self.other.get_clock()
        deadline = clock.now().nanoseconds + 20_000_000_000
        while not done():
            assert clock.now().nanoseconds < deadline, f"in vain: {self.heard}"
            again()
            for _ in range(20):
                self._executor.spin_once(timeout_sec=0.01)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.other.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()


def views(stamp: Any) -> CameraViews:
    message = CameraViews(names=["front", "wrist"])
    message.header.stamp = stamp
    for camera in ROBOT.cameras:
        header = Header(stamp=stamp, frame_id=camera.optical_frame)
        picture = np.full((camera.height, camera.width, 3), 90, np.uint8)
        message.images.append(rgb_to_image(picture, header))
        message.infos.append(camera_info(camera.intrinsics(), camera.width, camera.height, header))
    return message


def prediction(stamp: Any) -> SpatialPrediction:
    message = SpatialPrediction(camera="front", width=640, height=480, instruction=TASK)
    message.header = Header(stamp=stamp, frame_id=FRONT.optical_frame)
    message.boxes = [
        Box(label="red cube", x_min=250.0, y_min=240.0, x_max=310.0, y_max=300.0, score=0.9)
    ]
    message.points = [ImagePoint(x=280.0, y=270.0, score=1.0)]
    message.traces = [Trace(x=[280.0, 400.0], y=[270.0, 300.0])]
    return message


def test_pictures_and_markers_are_made_for_who_listens(graph: Graph) -> None:
    def say() -> None:
        stamp = graph.other.get_clock().now().to_msg()
        graph.instruction.publish(String(data=TASK))
        graph.joints.publish(
            JointState(
                header=Header(stamp=stamp),
                name=[*ROBOT.joints, *ROBOT.gripper.joints],
                position=[*ROBOT.ready.tolist(), 0.03, 0.03],
            )
        )
        full = views(stamp)
        graph.info.publish(full.infos[0])
        graph.views.publish(full)
        graph.prediction.publish(prediction(stamp))
        chunk = ActionChunk(sequence=4, dt=0.2, horizon=2, action_dim=7, actions=[0.01] * 14)
        chunk.header.stamp = stamp
        graph.chunk.publish(chunk)
        state = ExecutionState(state=ExecutionState.RUNNING, chunk_sequence=4)
        state.header.stamp = stamp
        state.commanded.header.frame_id = ROBOT.base_frame
        state.commanded.pose.position.x = 0.25
        graph.state.publish(state)

    graph.hear(Image, "front/annotated", SENSOR_OUT)
    graph.hear(CompressedImage, "wrist/annotated/compressed", SENSOR_OUT)
    graph.hear(MarkerArray, "markers", NEWEST)
    graph.hear(String, "robot_description", LATCHED)

    def complete() -> bool:
        arrays = graph.heard["markers"]
        return (
            len(graph.heard["front/annotated"]) > 2
            and bool(graph.heard["wrist/annotated/compressed"])
            and bool(arrays)
            and {"chunk", "boxes", "points", "rays", "traces", "state", "workspace"}
            <= {marker.ns for marker in arrays[-1].markers}
        )

    graph.until(complete, say)
    drawn = graph.heard["front/annotated"][-1]
    assert drawn.header.frame_id == FRONT.optical_frame
    picture = image_to_rgb(drawn).astype(int)
    assert np.abs(picture[250:290, 250] - AMBER).max() < 60  # the left edge of the box
    small = graph.heard["wrist/annotated/compressed"][-1]
    decoded = cv2.imdecode(np.frombuffer(small.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (480, 640, 3)
    assert graph.heard["robot_description"][-1].data == urdf(ROBOT.name)
    point = next(m for m in graph.heard["markers"][-1].markers if m.ns == "points")
    at = point.pose.position
    shown = front_view().project([[at.x, at.y, at.z]])
    np.testing.assert_allclose(shown, [[280.0, 270.0]], atol=1.0)


def test_nobody_looks_so_no_picture_is_taken_in(graph: Graph) -> None:
    graph.hear(Image, "front/annotated", SENSOR_OUT)
    taken = graph.views.get_subscription_count
    graph.until(lambda: taken() == 1, lambda: None)
    for subscription in list(graph.other.subscriptions):
        graph.other.destroy_subscription(subscription)
    graph.until(lambda: taken() == 0, lambda: None)


def test_what_is_published_is_stamped_with_the_time_of_its_picture(graph: Graph) -> None:
    graph.hear(Image, "front/annotated", SENSOR_OUT)
    sent: set[float] = set()

    def say() -> None:
        stamp = graph.other.get_clock().now().to_msg()
        sent.add(seconds(stamp))
        graph.views.publish(views(stamp))

    heard = graph.heard["front/annotated"]
    graph.until(lambda: len(heard) > 1, say)
    assert {seconds(message.header.stamp) for message in heard} <= sent
