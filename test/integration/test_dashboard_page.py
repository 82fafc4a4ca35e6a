"""The dashboard in a real browser: it shows the robot, starts it, stops it; strangers stay out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")
pytest.importorskip("viser")

import cv2
import numpy as np
import rclpy
from browser import Browser, Tab, find_chromium
from client import Client
from internvla_ros.msg import ExecutionState
from internvla_ros.srv import ResetScene
from numpy.typing import NDArray
from rclpy.signals import SignalHandlerOptions

from internvla_ros.bringup import NodeSpec, Options, environment, graph
from internvla_ros.nodes.supervisor import ProcessSpec, Supervisor, processes

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "build" / "test_artifacts"
SCRIPT = Path(__file__).with_name("scripted_sim.py")

needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="there is no Chromium here (Debian: apt install chromium)"
)


@dataclass
class Graph:
    """A running graph with a dashboard, and what watches it."""

    client: Client
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the page is."""
        self.client.wait(lambda: bool(self._found()), 60.0, "the page's address")
        return self._found()[0]

    def _found(self) -> list[str]:
        return [line.split()[1] for line in self.lines if line.startswith("page: ")]


def bring_up(parameters: dict[str, Any], *, alone: bool = False) -> Iterator[Graph]:
    """The graph's arm, camera and task nodes, a stand-in for the others, and a dashboard."""
    os.environ.update(environment())
    names = () if alone else ("arm", "camera", "task")
    nodes = [node for node in graph(Options()) if node.name in names]
    dashboard = NodeSpec("dashboard", "dashboard_node", {"port": 0, **parameters})
    specs = processes([*nodes, dashboard], "")
    if not alone:
        # Slowly, so that a task outlasts what a browser without a graphics card takes to follow.
        slowly = ("--ros-args", "-p", "real_time_factor:=0.2")
        specs.append(ProcessSpec("sim", (sys.executable, str(SCRIPT), *slowly)))
    lines: list[str] = []

    def note(name: str, line: str) -> None:
        print(f"{name}: {line}")
        if name == "dashboard":
            lines.append(line)

    with Supervisor(specs, note) as supervisor:
        supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        client = Client(lambda: supervisor.poll(0.0))
        try:
            yield Graph(client, lines)
        finally:
            client.close()
            rclpy.try_shutdown()


@pytest.fixture
def running() -> Iterator[Graph]:
    yield from bring_up({})


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as made:
        yield made


def screenshot(tab: Tab, name: str) -> NDArray[np.uint8]:
    """What the page looks like, uint8 [h, w, 3] BGR, kept among the artefacts of the tests."""
    data = tab.screenshot(ARTIFACTS / f"dashboard_{name}.png")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, dtype=np.uint8)


def part(picture: NDArray[np.uint8], tab: Tab, element: str) -> NDArray[np.uint8]:
    """The part of a screenshot that an element takes."""
    x, y, width, height = (
        int(value)
        for value in tab.evaluate(
            f"(() => {{ const r = ({element}).getBoundingClientRect();"
            " return [r.x, r.y, r.width, r.height]; })()"
        )
    )
    return picture[max(y, 0) : y + height, max(x, 0) : x + width]


def button(label: str) -> str:
    """JavaScript that finds a button by the beginning of its label."""
    return (
        "[...document.querySelectorAll('button')].find(each => "
        f"each.textContent.trim().startsWith('{label}') && each.offsetParent !== null)"
    )


STATE = "document.getElementById('arm-state')?.dataset.state"
SCENE = "[...document.querySelectorAll('canvas')].find(each => each.width > 400)"
TEXT_BOX = "document.querySelector('form input[type=text], form input:not([type])')"
VIEWS = "[...document.querySelectorAll('img')].filter(each => each.naturalWidth === 480)"


def wait_for(graph: Graph, tab: Tab, expression: str, what: str) -> None:
    """Wait until a JavaScript expression is true on a page that is looked at."""
    tab.show()
    graph.client.wait(lambda: bool(tab.evaluate(expression)), 60.0, what)


def wait_for_page(graph: Graph, tab: Tab) -> None:
    """Until the page is there with the arm's state, two views and the 3-D scene."""
    wait_for(graph, tab, f"!!({STATE}) && ({STATE}) !== 'silent'", "the arm's state on the page")
    wait_for(graph, tab, f"({VIEWS}).length === 2", "two camera views")
    wait_for(graph, tab, f"!!({SCENE}) && !!({button('STOP')})", "the scene and the stop")


def shows_something(picture: NDArray[np.uint8]) -> bool:
    """Whether a part of a screenshot is more than one plain colour."""
    return picture.size > 0 and float(picture.std(axis=(0, 1)).max()) > 12.0


def type_instruction(graph: Graph, tab: Tab, instruction: str) -> None:
    """Type into the instruction box and press Enter."""
    tab.click(TEXT_BOX)
    tab.evaluate(f"{TEXT_BOX}.select()")
    tab.type(instruction)
    wait_for(graph, tab, f"{TEXT_BOX}.value === {instruction!r}", "the typed instruction")
    graph.client.let_pass(0.3)  # the page sends what is typed in its own time
    tab.press("Enter", 13)


def lay_scene(client: Client, seed: int) -> str:
    """A fresh scene; its instruction."""
    request = ResetScene.Request(seed=seed)
    return str(client.answer(client.reset.call_async(request)).result().instruction)


def still(client: Client) -> bool:
    """Whether the arm says that it does not follow anything."""
    return client.state is not None and client.state.state in (
        ExecutionState.STOPPED,
        ExecutionState.FAULT,
    )


@needs_chromium
def test_the_page_shows_the_robot_starts_it_and_stops_it(running: Graph, browser: Browser) -> None:
    client = running.client
    client.wait_until_ready()
    instruction = lay_scene(client, 1)
    tab = browser.open(running.url)
    wait_for_page(running, tab)

    def all_is_drawn() -> bool:
        picture = screenshot(tab, "ready")
        places = (SCENE, f"({VIEWS})[0]", f"({VIEWS})[1]")
        return all(shows_something(part(picture, tab, place)) for place in places)

    client.wait(all_is_drawn, 60.0, "the robot and its views to be drawn")
    assert client.state is not None and client.state.state == ExecutionState.IDLE

    type_instruction(running, tab, instruction)
    client.wait_for_state(ExecutionState.RUNNING)
    wait_for(running, tab, f"({STATE}) === 'running'", "the page to show that the arm moves")
    client.let_pass(1.0)
    screenshot(tab, "running")

    tab.click(button("STOP"))
    client.wait(lambda: still(client), 30.0, "the arm to stop")
    assert client.state.emergency_stop
    wait_for(running, tab, f"({STATE}) === 'emergency'", "the page to show the emergency stop")
    wait_for(running, tab, "document.body?.textContent.includes('Release the stop')", "the release")
    client.let_pass(1.0)  # it has come to rest by then
    joints = client.joints
    client.let_pass(1.0)
    assert joints is not None and client.joints == pytest.approx(joints, abs=0.02)
    screenshot(tab, "stopped")

    tab.click(button("Release"))
    client.wait(
        lambda: client.state is not None and not client.state.emergency_stop, 30.0, "the release"
    )
    wait_for(running, tab, f"({STATE}) === 'stopped'", "the page to show that the arm is free")
    assert not tab.errors


@needs_chromium
def test_pausing_and_what_others_see(running: Graph, browser: Browser) -> None:
    """Two browsers show the same; one that reloads gets the state; goals of others are shown."""
    client = running.client
    client.wait_until_ready()
    instruction = lay_scene(client, 2)
    tabs = [browser.open(running.url), browser.open(running.url)]
    for tab in tabs:
        wait_for_page(running, tab)
    wait_for_page(running, tabs[0])  # in front again
    handle = client.send(instruction)
    wait_for(running, tabs[0], shows(instruction), "the instruction of somebody else's goal")
    client.wait_for_state(ExecutionState.RUNNING)  # an arm that never moved would stay idle
    wait_for(running, tabs[0], f"!({button('Pause')}).disabled", "the button to pause")
    tabs[0].click(button("Pause"))
    client.result(handle)
    client.wait(lambda: still(client), 30.0, "the arm to stop")
    wait_for(running, tabs[1], f"!!({button('Resume')})", "the other page to offer to resume")
    tabs[1].go(running.url)
    wait_for_page(running, tabs[1])
    wait_for(running, tabs[1], shows(f"paused: {instruction}"), "the state after a reload")
    tabs[1].click(button("Resume"))
    client.wait_for_state(ExecutionState.RUNNING)
    wait_for(running, tabs[0], f"({STATE}) === 'running'", "the page to show that the arm moves")
    assert not tabs[0].errors


def shows(text: str) -> str:
    """JavaScript that tells whether a text stands on the page."""
    return f"document.body?.textContent.includes({text!r})"


OPEN_SOCKET = """new Promise(resolve => {
    const socket = new WebSocket(location.origin.replace('http', 'ws'));
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('no');
})"""


@pytest.fixture
def abroad() -> Iterator[Graph]:
    yield from bring_up({"host": "0.0.0.0", "port": 0}, alone=True)


@needs_chromium
def test_on_other_addresses_only_who_has_the_token_sees_the_page(
    abroad: Graph, browser: Browser
) -> None:
    address, _, token = abroad.url.partition("?token=")
    port = address.rstrip("/").rpartition(":")[2]
    stranger = browser.open(f"http://127.0.0.1:{port}/")
    wait_for(abroad, stranger, shows("A token is needed"), "to be asked for the token")
    stranger.evaluate(f"document.querySelector('input').value = 'x' + {token!r}")
    stranger.evaluate("document.querySelector('form').submit()")
    abroad.client.wait(
        lambda: "token=x" in stranger.evaluate("location.href"), 30.0, "the wrong token to be sent"
    )
    wait_for(abroad, stranger, shows("A token is needed"), "to be asked again")
    assert stranger.evaluate(OPEN_SOCKET) == "no"
    guest = browser.open(f"http://127.0.0.1:{port}/?token={token}")
    wait_for(abroad, guest, f"!!({button('STOP')})", "the page")
    assert guest.evaluate("location.search") == ""
