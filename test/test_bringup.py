"""The graph as data, what starts it, and what is found wrong before anything starts."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from integration.small_release import write_release
from policy_folder import CONFIG, safetensors, save_policy_folder

from internvla_ros.bringup import (
    MOTIONS,
    BringupError,
    Options,
    environment,
    gazebo_graph,
    graph,
    moveit_graph,
    require_programs,
)
from internvla_ros.model.config import ConfigError
from internvla_ros.node_spec import NodeSpec, command
from internvla_ros.nodes.launching import OTHER_NAMES
from internvla_ros.nodes.preflight import PreflightError, check, find_checkpoint
from internvla_ros.resources import resource
from internvla_ros.respawn import WAITS
from internvla_ros.robots.embodiment import EmbodimentError, known_embodiments

ROOT = Path(__file__).resolve().parent.parent


def test_one_node_a_name_and_a_simulator_only_when_asked_for() -> None:
    nodes = graph(Options(checkpoint="/x"))
    names = ["planner", "actor", "arm", "camera", "task", "markers", "sim"]
    assert [node.name for node in nodes] == names
    assert [node.name for node in graph(Options(sim="none"))] == [node.name for node in nodes[:-1]]


def test_an_unknown_simulator() -> None:
    with pytest.raises(BringupError, match="'matlab'; choose one of mujoco, gazebo, none"):
        graph(Options(sim="matlab"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(motion="telepathy"), "motion is 'telepathy'; choose one of embedded"),
        (Options(use_sim_time="maybe"), "use_sim_time is 'maybe'"),
        (Options(namespace="left"), "must start with /"),
        (Options(hardware="mock"), "a robot is real, mocked or simulated"),
        (Options(motion="moveit"), "FollowJointTrajectory"),
        (Options(cameras="front"), "give NAME=TOPIC"),
        (
            Options(robot="franka_fr3", sim="none", hardware="real"),
            "'real' of franka_fr3 needs the address of its control unit: give robot_ip",
        ),
        (Options(sim="none", hardware="trossen_arm"), "needs the address of its control unit"),
        (Options(sim="none", hardware="real", robot_ip="10.0.0.2"), "has no address"),
        (Options(robot_ip="10.0.0.2"), "hardware 'none' of widowx_250s has no address"),
        (
            Options(sim="none", hardware="libfranka", robot_ip="10.0.0.2", motion="moveit"),
            "which the driver libfranka is not",
        ),
        (Options(cameras="side=/x"), "NAME is one of front, wrist"),
    ],
)
def test_options_that_cannot_be(options: Options, message: str) -> None:
    with pytest.raises(BringupError, match=message):
        graph(options)


def test_what_is_not_installed_is_named() -> None:
    require_programs(graph(Options()))
    with pytest.raises(BringupError, match=r"create \(package ros_gz_sim\)"):
        require_programs([NodeSpec("a", "create", package="ros_gz_sim")])
    with pytest.raises(BringupError, match="no_such_program; they belong"):
        require_programs([NodeSpec("a", "no_such_program", package="")])


def test_the_motions_are_those_of_the_arm() -> None:
    pytest.importorskip("internvla_ros.msg")
    from internvla_ros.nodes import backends

    assert backends.MOTIONS == MOTIONS


def test_each_way_to_a_robot_starts_what_it_needs() -> None:
    def others(**options: Any) -> list[str]:
        nodes = graph(Options(markers=False, **options))
        return [node.name for node in nodes if node.package != "internvla_ros"]

    control = ["robot_state_publisher", "controller_manager", "controller_spawner"]
    assert others() == others(sim="none") == []
    assert others(sim="none", hardware="mock") == control
    assert others(sim="none", hardware="mock", motion="moveit") == [*control, "move_group"]
    assert others(motion="moveit_servo") == ["move_group", "servo_node"]
    gazebo = ["gazebo", "spawn", "bridge"]
    assert others(sim="gazebo") == [control[0], control[2], *gazebo]
    assert [node.name for node in gazebo_graph(Options(sim="gazebo"))] == others(sim="gazebo")
    names = [node.name for node in moveit_graph(Options(sim="none", hardware="mock"))]
    assert names == [*control, "move_group", "servo_node"]


FR3 = Options(robot="franka_fr3", sim="none", robot_ip="10.0.0.2")


def named(options: Options) -> dict[str, NodeSpec]:
    return {node.name: node for node in graph(options)}


def test_a_real_franka_comes_up_with_its_controllers_and_its_hand() -> None:
    nodes = named(replace(FR3, hardware="real", namespace="/left"))
    description = nodes["robot_state_publisher"].parameters["robot_description"]
    assert '<param name="robot_ip">10.0.0.2</param>' in str(description)
    assert nodes["controller_manager"].parameter_file == "config/controllers/franka_fr3_real.yaml"
    assert nodes["controller_spawner"].arguments[:2] == (
        "joint_state_broadcaster",
        "arm_controller",
    )
    assert "gripper_controller" not in nodes["controller_spawner"].arguments
    hand = nodes["franka_gripper"]
    assert hand.parameters["robot_ip"] == "10.0.0.2"
    assert hand.remappings["~/joint_states"] == "joint_states"
    arm = nodes["arm"].parameters
    assert arm["gripper_action"] == "franka_gripper/gripper_action"
    assert arm["gripper_effort"] == 20.0


def test_a_robot_without_ros_drivers_comes_up_with_ours() -> None:
    nodes = named(replace(FR3, hardware="libfranka"))
    assert nodes["driver"].parameters == {
        "robot": "franka_fr3",
        "driver": "franka",
        "address": "10.0.0.2",
    }
    assert not nodes["driver"].respawn
    assert "gripper_output" not in nodes["arm"].parameters
    assert nodes["markers"].parameters["robot_state"] is True
    assert all(node.package == "internvla_ros" for node in nodes.values())
    assert named(replace(FR3, hardware="trossen_arm"))["driver"].parameters["driver"] == "widowx_ai"


def test_an_interbotix_driver_is_in_the_namespace_of_the_graph() -> None:
    options = Options(sim="none", motion="interbotix", namespace="/wx250s")
    assert named(options)["arm"].parameters["interbotix_namespace"] == "/wx250s"
    assert "interbotix_namespace" not in named(replace(options, namespace=""))["arm"].parameters


def test_controllers_of_other_names() -> None:
    nodes = named(Options(sim="none", arm_controller="fr3_arm", gripper_action="hand/grip"))
    assert nodes["arm"].remappings == {
        "arm_controller/joint_trajectory": "fr3_arm/joint_trajectory"
    }
    assert nodes["arm"].parameters["gripper_output"] == "gripper_command"
    assert nodes["arm"].parameters["gripper_action"] == "hand/grip"


def test_a_namespace_keeps_frames_and_the_simulated_clock_apart() -> None:
    own = {"/tf": "tf", "/tf_static": "tf_static"}
    for node in graph(Options(namespace="/left")):
        assert node.remappings == {**own, "/clock": "clock"}
    for node in graph(Options(namespace="/left", sim="gazebo")):
        assert node.remappings == (own if node.package else {})
    assert not any(node.remappings for node in graph(Options()))


def test_cameras_may_be_published_under_other_names() -> None:
    (camera,) = (
        node for node in graph(Options(cameras="front=/d435/color/")) if node.name == "camera"
    )
    assert camera.remappings == {
        "front/image_raw": "/d435/color/image_raw",
        "front/camera_info": "/d435/color/camera_info",
    }


@pytest.mark.parametrize("robot", known_embodiments())
def test_moveit_gets_plain_parameters(robot: str) -> None:
    """Nothing nested, nothing empty, and floats where MoveIt declares floats."""
    for node in moveit_graph(Options(robot=robot, sim="none")):
        for name, value in node.parameters.items():
            assert isinstance(value, bool | int | float | str | tuple), name
            assert value != ()
        assert node.parameters["robot_description_kinematics.arm.kinematics_solver"]
    period = node.parameters["update_period"]
    assert isinstance(period, float) and 0.0 < period <= 0.02


def test_only_what_is_simulated_follows_the_simulated_clock() -> None:
    for clock in ("true", "false"):
        nodes = graph(Options(sim="none", use_sim_time=clock))
        assert all(node.parameters["use_sim_time"] is (clock == "true") for node in nodes)
    for node in graph(Options()):
        assert node.parameters.get("use_sim_time") == (None if node.name == "sim" else True)
    assert all(node.parameters["use_sim_time"] is False for node in graph(Options(sim="none")))


def test_what_moves_the_arm_is_never_started_again_by_itself() -> None:
    respawned = {node.name for node in graph(Options()) if node.respawn}
    assert respawned == {"planner", "actor", "camera", "task", "markers"}
    assert not any(node.respawn for node in graph(Options(respawn=False)))


def test_managed_nodes_start_by_themselves_or_not() -> None:
    for autostart in (True, False):
        nodes = {node.name: node for node in graph(Options(autostart=autostart))}
        managed = {name for name, node in nodes.items() if "autostart" in node.parameters}
        assert managed == {"planner", "actor", "arm"}
        assert all(nodes[name].parameters["autostart"] is autostart for name in managed)


def test_the_command_line_of_a_node() -> None:
    node = NodeSpec("left", "arm_node", {"robot": 'odd "name"', "rate": 2.0, "list": ("a", "b")})
    words = command(node, "/ns")
    assert words[:4] == (sys.executable, "-m", "internvla_ros.nodes.arm_node", "--ros-args")
    assert {"__node:=left", "__ns:=/ns"} <= set(words)
    values = dict(word.split(":=", 1) for word in words if ":=" in word)
    assert yaml.safe_load(values["robot"]) == 'odd "name"'
    assert yaml.safe_load(values["list"]) == ["a", "b"]
    assert yaml.safe_load(values["rate"]) == 2.0


def test_the_environment_names_files_that_exist() -> None:
    assert Path(environment()["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


class Recorded(SimpleNamespace):
    """Stands in for every class of launch and launch_ros: keeps what it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(args=args, **kwargs)

    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


def launch_file(name: str) -> ModuleType:
    path = ROOT / "launch" / f"{name}.launch.py"
    spec = importlib.util.spec_from_file_location(f"{name}_launch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = ("DeclareLaunchArgument", "ExecuteProcess", "OpaqueFunction", "TimerAction")
    names = {
        "launch": ("LaunchDescription",),
        "launch.actions": (*actions, "LogInfo", "SetEnvironmentVariable", "Shutdown"),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros": (),
        "launch_ros.actions": ("Node",),
        "launch_ros.parameter_descriptions": ("ParameterValue",),
    }
    for module_name, classes in names.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)


def test_the_launch_file_starts_the_same_graph(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    """Where the real launch is, test_launch.py tells more."""
    stand_in_launch(monkeypatch)
    (entities,) = launch_file("bringup").generate_launch_description().args
    arguments = {
        e.args[0]: e.default_value for e in entities if type(e).__name__ == "DeclareLaunchArgument"
    }
    assert list(arguments) == [OTHER_NAMES.get(field.name, field.name) for field in fields(Options)]
    assert sum(type(e).__name__ == "SetEnvironmentVariable" for e in entities) == len(environment())
    started = entities[-1].function({**arguments, "model": str(checkpoint), "seed": "7"})
    wanted = graph(Options(checkpoint=str(checkpoint), seed=7))
    assert [(n.name, n.executable) for n in started] == [
        (node.name, node.executable) for node in wanted
    ]
    for node, spec in zip(started, wanted, strict=True):
        assert node.package == "internvla_ros"
        file, values = node.parameters
        assert file == str(resource(spec.parameter_file))
        assert {k: getattr(v, "args", (v,))[0] for k, v in values.items()} == spec.parameters


def test_the_launch_file_starts_again_what_the_graph_says(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    stand_in_launch(monkeypatch)
    (entities,) = launch_file("bringup").generate_launch_description().args
    arguments = {
        e.args[0]: e.default_value for e in entities if type(e).__name__ == "DeclareLaunchArgument"
    }
    started = entities[-1].function({**arguments, "model": str(checkpoint)})
    going_on = SimpleNamespace(is_shutdown=False)
    for node, spec in zip(started, graph(Options()), strict=True):
        waits = []
        while True:
            said, last = (*node.on_exit(SimpleNamespace(returncode=1), going_on), None)[:2]
            assert f"{spec.name} ended with status 1" in said.msg
            if type(last).__name__ != "TimerAction":
                break
            waits.append(last.period)
            (node,) = last.actions
            assert node.name == spec.name
        assert waits == (list(WAITS) if spec.respawn else [])
        assert type(last).__name__ == ("Shutdown" if spec.vital else "NoneType")
        assert (
            node.on_exit(SimpleNamespace(returncode=1), SimpleNamespace(is_shutdown=True)) is None
        )


@pytest.mark.parametrize("name", ["bringup", "demo", "gazebo", "moveit"])
def test_a_launch_file_without_launch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("launch", "launch.actions"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeError, match="internvla up"):
        launch_file(name).generate_launch_description()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_policy_folder(tmp_path)


def test_what_is_whole_passes(checkpoint: Path) -> None:
    robot, config = check("widowx_250s", checkpoint)
    assert robot.name == "widowx_250s"
    assert config.cameras == ("front", "wrist")


def test_an_unknown_robot(checkpoint: Path) -> None:
    with pytest.raises(EmbodimentError, match=r"unknown robot 'r2d2'; known robots: .*widowx_250s"):
        check("r2d2", checkpoint)


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"no checkpoint folder at .*nothing"):
        check("widowx_250s", tmp_path / "nothing")
    with pytest.raises(PreflightError, match=r"lacks config\.json, model.safetensors"):
        check("widowx_250s", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", safetensors(10, 16), "is corrupt: .* bytes, its header says"),
        ("model.safetensors", b"abc", "cut short in its header"),
        ("model.safetensors", (5).to_bytes(8, "little") + b"[1,2]", "header cannot be read"),
        ("tokenizer.json", b"{", "tokenizer.json is corrupt"),
        ("dataset_statistics.json", b"\xff\xfe", "dataset_statistics.json is corrupt"),
    ],
)
def test_a_corrupt_checkpoint(checkpoint: Path, name: str, content: bytes, words: str) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(PreflightError, match=words):
        check("widowx_250s", checkpoint)


def test_a_configuration_that_cannot_be_read(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        check("widowx_250s", checkpoint)


def test_a_policy_for_other_cameras(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({**CONFIG, "cameras": ["front", "side"]}))
    with pytest.raises(PreflightError, match="needs camera side"):
        check("widowx_250s", checkpoint)


def test_a_checkpoint_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("here") == tmp_path / "here"


def test_released_checkpoints_pass_as_they_are(tmp_path: Path) -> None:
    run = write_release(tmp_path / "run")
    _, config = check("widowx_250s", run)
    assert config.actor.chunk_size == 8
    (run / "config.yaml").unlink()
    (run / "config.json").unlink()
    with pytest.raises(PreflightError, match="config"):
        check("widowx_250s", run)
