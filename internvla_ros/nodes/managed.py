"""Managed nodes (ROS 2 lifecycle): prepared, started, held and given back while they live.

rclpy carries a transition out inside the callback of the service that asks for it. What loads
weights, or brings an arm to rest, would be deaf meanwhile. Here a transition takes as many turns of
the executor as it needs, its long work is done in a thread, and the service answers at its end.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter

from internvla_ros.nodes.diagnostics import ERROR, OK, Diagnostics, Health
from internvla_ros.nodes.parameters import setting

Tell = Callable[[str], None]
"""Takes a line about how far some work is."""
Steps = Iterator[None]
"""A transition: what it does between two turns of the executor, to the end."""

EXPECTED = (ValueError, RuntimeError, OSError)
"""What says in one line why a transition is not possible; anything else is a fault of ours."""

_TURN = 0.02  # s between two looks at a transition under way
_REST_PATIENCE = 5.0  # s to come to rest; whoever has sent nothing for so long never will
_ALWAYS = ("use_sim_time",)  # parameters that a node's state has nothing to do with
_KINDS = ("publisher", "subscription", "client", "service", "timer")


@dataclass(frozen=True)
class Managed:
    """Parameters of every managed node."""

    autostart: bool = setting(
        True, "configure and activate by itself; a failure is then the end of the node"
    )


class ManagedNode(LifecycleNode):
    """A node whose subclass says what its states mean, by these methods.

    `load` does all that takes long, in a thread of its own; `configure` takes what it has made and
    creates the interfaces, which `cleanup` need not destroy. `activate` begins; after `deactivate`
    the node is on its way to rest until `at_rest`. Each but the last two may raise one of EXPECTED
    with a line that says why it is not possible. Nothing but `load` runs beside other callbacks.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failure = ""
        """Why a node that starts by itself could not; see `runner`."""
        self.configured = False
        """Whether it has what `configure` was given."""
        self._reason = ""  # why the last transition failed
        self._progress = ""
        self._steps: Steps | None = None
        self._end: Callable[[bool], None] = _nothing
        self._kept: set[int] = set()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._turns = self.create_timer(_TURN, self._turn, clock=steady)
        self._turns.cancel()
        self._diagnostics = Diagnostics(self, self._managed_health)
        self.add_on_set_parameters_callback(self._may_change)
        self._answer = self._service_change_state.send_response
        self._service_change_state.callback = self._on_change_state
        self._service_change_state.send_response = self._on_response

    # What a subclass says.

    def load(self, tell: Tell) -> Any:
        """What `configure` is to be given. Runs in a thread: reads parameters, but leaves the node
        as it is. `tell` takes a line about how far it is."""

    def configure(self, loaded: Any) -> None:
        """Make the interfaces; the node stays at rest."""

    def activate(self) -> None:
        """Begin."""

    def deactivate(self) -> None:
        """Begin to come to rest; `active` is false already."""

    def at_rest(self) -> bool:
        """Whether it has come to rest since `deactivate`."""
        return True

    def cleanup(self) -> None:
        """Forget what `configure` was given."""

    def health(self) -> Health:
        """How the active node is."""
        return Health(OK, "active")

    # What it may ask.

    @property
    def state(self) -> str:
        """The label of its state: unconfigured, configuring, inactive, active, ..."""
        return str(self._state_machine.current_state[1])

    @property
    def active(self) -> bool:
        """Whether it is to do its work."""
        return bool(self._state_machine.current_state[0] == State.PRIMARY_STATE_ACTIVE)

    def start(self) -> None:
        """Configure and activate; what prevents it is kept as `failure`."""

        def configured(succeeded: bool) -> None:
            if succeeded:
                self._begin(Transition.TRANSITION_ACTIVATE, activated)
            else:
                self.failure = self._reason

        def activated(succeeded: bool) -> None:
            self.failure = self._reason

        self._begin(Transition.TRANSITION_CONFIGURE, configured)

    def destroy_node(self) -> None:
        """Let go of the state machine too, which keeps the node in use."""
        self._state_machine.destroy_when_not_in_use()
        super().destroy_node()

    # Transitions at once, for who has no executor: rclpy's trigger_configure() and the others.

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load and configure."""
        return self._at_once(self._configuring())

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Activate."""
        return self._at_once(self._activating())

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Deactivate; what has to come to rest does so later."""
        self.deactivate()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Clean up."""
        return self._at_once(self._cleaning_up())

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Clean up what is configured."""
        return self._at_once(self._cleaning_up() if self.configured else iter(()))

    def _at_once(self, steps: Steps) -> TransitionCallbackReturn:
        try:
            for _ in steps:
                time.sleep(_TURN)
        except EXPECTED as error:
            self._failed(error)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    # Transitions in turns.

    def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response | _Later:
        """Begin what is asked for, and answer when it has ended."""
        asked = request.transition
        possible = {
            label: number for number, label, *_ in self._state_machine.available_transitions
        }
        number = possible.get(asked.label, asked.id) if asked.label else asked.id
        if self._steps is not None or number not in possible.values():
            self.get_logger().error(
                f"{asked.label or f'transition {asked.id}'} is not possible while {self.state}"
            )
            return response
        later = _Later()

        def end(succeeded: bool) -> None:
            if not succeeded:
                self.get_logger().error(f"still {self.state}: {self._reason}")
            self._answer(ChangeState.Response(success=succeeded), later.header)

        self._begin(number, end)
        return later

    def _on_response(self, response: Any, header: Any) -> None:
        """What the executor does with what `_on_change_state` returns."""
        if isinstance(response, _Later):
            response.header = header
        else:
            self._answer(response, header)

    def _begin(self, transition: int, end: Callable[[bool], None]) -> None:
        """Begin a transition that is possible; `end` is told whether it succeeded."""
        was_active = self.active
        self._state_machine.trigger_transition_by_id(transition, True)
        self._reason = self._progress = ""
        self._end = end
        self._steps = {
            Transition.TRANSITION_CONFIGURE: self._configuring,
            Transition.TRANSITION_ACTIVATE: self._activating,
            Transition.TRANSITION_DEACTIVATE: self._deactivating,
            Transition.TRANSITION_CLEANUP: self._cleaning_up,
        }.get(transition, lambda: self._shutting_down(was_active))()
        self._turns.reset()

    def _turn(self) -> None:
        """Go on with the transition under way."""
        assert self._steps is not None
        result = TransitionCallbackReturn.SUCCESS
        try:
            next(self._steps)
            return
        except StopIteration:
            pass
        except EXPECTED as error:
            self._failed(error)
            result = TransitionCallbackReturn.FAILURE
        self._turns.cancel()
        self._steps, self._progress = None, ""
        self._state_machine.trigger_transition_by_label(result.to_label(), True)
        self._diagnostics.publish()
        self._end(result == TransitionCallbackReturn.SUCCESS)

    def _failed(self, error: Exception) -> None:
        self._reason = " ".join(str(error).split()) or type(error).__name__

    def _configuring(self) -> Steps:
        loading = _in_thread(lambda: self.load(self._tell))
        while not loading.done():
            yield
        self._kept = {id(each) for _, each in self._entities()}
        self._kept |= {id(each) for each in self.waitables}
        try:
            self.configure(loading.result())
        except EXPECTED:
            self._give_back()
            raise
        self.configured = True

    def _activating(self) -> Steps:
        self.activate()
        yield from ()

    def _deactivating(self) -> Steps:
        self.deactivate()
        deadline = time.monotonic() + _REST_PATIENCE
        while not self.at_rest():
            if time.monotonic() > deadline:
                self.get_logger().error(f"not at rest after {_REST_PATIENCE:.0f} s")
                return
            yield

    def _cleaning_up(self) -> Steps:
        self.configured = False
        self.cleanup()
        self._give_back()
        yield from ()

    def _shutting_down(self, was_active: bool) -> Steps:
        if was_active:
            yield from self._deactivating()
        if self.configured:
            yield from self._cleaning_up()

    def _tell(self, progress: str) -> None:
        self._progress = progress

    # What belongs to the configured node.

    def _entities(self) -> list[tuple[str, Any]]:
        """Kinds and handles of what was created on this node."""
        return [(kind, each) for kind in _KINDS for each in getattr(self, f"{kind}s")]

    def _give_back(self) -> None:
        """Destroy what was created since `configure` began, and free memory."""
        for kind, each in self._entities():
            if id(each) not in self._kept:
                getattr(self, f"destroy_{kind}")(each)
        for action in [each for each in self.waitables if id(each) not in self._kept]:
            action.destroy()
        gc.collect()
        torch = sys.modules.get("torch")  # there where weights were loaded into this process
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _may_change(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Whether parameters may be set; those that are being declared may."""
        unconfigured = self._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED
        for each in parameters:
            free = each.name in _ALWAYS or not self.has_parameter(each.name)
            if not unconfigured and not free:
                reason = f"{self.get_name()} is {self.state}: clean it up before {each.name} is set"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _managed_health(self) -> Health:
        if self.active:
            health = self.health()
            return Health(health.level, health.message, {"state": "active", **health.values})
        message = self._progress or self._reason or self.state
        return Health(ERROR if self._reason else OK, message, {"state": self.state})


class _Later:
    """Stands for a response that follows when it is known."""

    header: Any = None


def _nothing(succeeded: bool) -> None:
    """Nobody waits for the end of a transition."""


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Work in a thread that does not keep the process alive."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
