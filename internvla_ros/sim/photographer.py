"""Pictures of a world that goes on while they are being taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from internvla_ros.robots.embodiment import CameraSpec

_NICENESS = 1  # how much the thread gives way to the physics, which keeps everybody's time
_PATIENCE = 10.0  # s for a picture under way to be finished

Deliver = Callable[[CameraSpec, NDArray[np.uint8], float], None]


class Staged(Protocol):
    """A world as far as a photographer looks at it; the model may be exchanged between orders."""

    model: mujoco.MjModel
    data: mujoco.MjData


@dataclass(frozen=True)
class _Order:
    """Cameras to look through, and the time (s) to be told with their pictures."""

    cameras: tuple[CameraSpec, ...]
    t: float


class Photographer:
    """Renders in a thread of its own what a world looked like when it was asked.

    Rendering by the processor takes longer than a step of the physics. One order is worked on at a
    time; like a camera that is too slow, it drops what comes meanwhile.

    Args:
        world: only its model and its state are looked at. Call `rest` before its scene changes.
        deliver: is given each picture (uint8 [height, width, 3], RGB) and its time, in the thread.
    """

    def __init__(self, world: Staged, deliver: Deliver) -> None:
        self._world, self._deliver = world, deliver
        self._model: mujoco.MjModel | None = None
        self._data: mujoco.MjData | None = None
        self._order: _Order | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.error: Exception | None = None
        """What ended the thread before its time."""
        self._thread = threading.Thread(target=self._work, name="photographer", daemon=True)
        self._thread.start()

    def take(self, cameras: tuple[CameraSpec, ...], t: float) -> bool:
        """Ask for a picture of the world as it is now, by each camera; False: still busy.

        Raises:
            RuntimeError: rendering failed before.
        """
        with self._changed:
            if self.error is not None:
                raise RuntimeError(f"pictures cannot be rendered: {self.error}") from self.error
            if self._order is not None or self._closed:
                return False
            if self._model is not self._world.model:
                self._model = self._world.model
                self._data = mujoco.MjData(self._model)
            mujoco.mj_copyData(self._data, self._model, self._world.data)
            self._order = _Order(cameras, t)
            self._changed.notify_all()
        return True

    def rest(self) -> None:
        """Wait until nothing is being rendered, so that the model may change."""
        with self._changed:
            self._changed.wait_for(lambda: self._order is None, _PATIENCE)

    def close(self) -> None:
        """Finish what is under way and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        _give_way()
        renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        model = None
        try:
            while (order := self._next()) is not None:
                if model is not self._model:
                    _free(renderers)
                    model = self._model
                for camera in order.cameras:
                    self._deliver(camera, self._picture(camera, renderers), order.t)
                self._done()
        except Exception as error:
            self.error = error
            self._done()
        finally:
            _free(renderers)

    def _next(self) -> _Order | None:
        """The next order; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._order is not None or self._closed)
            return self._order

    def _done(self) -> None:
        with self._changed:
            self._order = None
            self._changed.notify_all()

    def _picture(
        self, camera: CameraSpec, renderers: dict[tuple[int, int], mujoco.Renderer]
    ) -> NDArray[np.uint8]:
        size = (camera.width, camera.height)
        if size not in renderers:
            renderers[size] = plain_renderer(self._model, *size)
        renderers[size].update_scene(self._data, camera.name)
        return renderers[size].render()


def plain_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """A renderer without shadows and reflections, for the thread that makes it."""
    renderer = mujoco.Renderer(model, height, width)
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = False
    return renderer


def _free(renderers: dict[tuple[int, int], mujoco.Renderer]) -> None:
    for renderer in renderers.values():
        renderer.close()
    renderers.clear()


def _give_way() -> None:
    """Let the rest of the process go first; Linux keeps priorities for every thread.

    With a real-time priority it keeps the lowest: were it put aside by any other process while it
    holds the interpreter's lock, the rest of this one would wait for it.
    """
    here = threading.get_native_id()
    if os.sched_getscheduler(here) == os.SCHED_FIFO:
        os.sched_setscheduler(here, os.SCHED_FIFO, os.sched_param(1))
        return
    os.setpriority(os.PRIO_PROCESS, here, os.getpriority(os.PRIO_PROCESS, here) + _NICENESS)
