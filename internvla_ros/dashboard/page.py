"""The page: its layout, its buttons, and what fills it. One page, however many browsers show it.

Whoever opens or reloads it gets all that was shown last. Buttons call from threads of their own.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import viser
from numpy.typing import NDArray

from internvla_ros.dashboard import words
from internvla_ros.dashboard.charts import CHARTS, SPAN, Chart, Series
from internvla_ros.dashboard.gate import Gate
from internvla_ros.dashboard.journal import Journal

_LEFT, _RIGHT = 400, 400  # px, widths of the panels
_JPEG_QUALITY = 82
_NOTHING = "earlier instructions"
_BRAND = (70, 125, 225)
_AXIS = "#8a919c"
_GRID = "rgba(128,128,128,.18)"


@dataclass(frozen=True)
class Controls:
    """What the page's buttons do."""

    run: Callable[[str], None]
    pause: Callable[[], None]
    stop: Callable[[], None]
    release: Callable[[], None]
    new_scene: Callable[[], None]


class _Server(viser.ViserServer):
    """viser's server, which shares nothing with the world whoever asks for it."""

    def request_share_url(self, verbose: bool = True) -> None:
        """Do not open the tunnel that viser offers."""


def serve(gate: Gate) -> viser.ViserServer:
    """Start the page's own server and open the gate to it.

    Its address is a random one of the 16 million that a machine has for itself, so that only who
    comes through the gate finds it.
    """
    own = "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))
    with contextlib.redirect_stdout(io.StringIO()):  # it announces an address that is not ours
        server = _Server(host=own, port=0, label="internvla_ros", verbose=False)
    gate.open((own, server.get_port()))
    return server


class Page:
    """Everything around the 3-D view."""

    def __init__(
        self,
        server: viser.ViserServer,
        cameras: Sequence[tuple[str, tuple[int, int]]],
        controls: Controls,
        *,
        dark: bool,
    ) -> None:
        """
        Args:
            server: of the page.
            cameras: names and sizes (width, height) of the pictures that will come.
            controls: what the buttons do.
            dark: light letters on dark ground, until a browser chooses otherwise.
        """
        self._server = server
        self._gui = server.gui
        self._controls = controls
        self._dark = dark
        self._darkened: dict[int, bool] = {}
        self._theme(self._gui, dark)
        self._views = self._add_views(cameras)
        self._add_control()
        self._add_plots()
        self._add_stop()

    @property
    def watched(self) -> bool:
        """Whether anybody looks at the page."""
        return bool(self._server.get_clients())

    def view(self, camera: str, picture: NDArray[np.uint8]) -> None:
        """Show a camera's picture uint8 [h, w, 3] RGB."""
        self._views[camera].image = picture

    def planner(self, text: str, latency: float) -> None:
        """Show the planner's words and how long it thought (s)."""
        _write(self._planner, words.planner(text, latency))

    def status(self, state: str, reason: str, journal: Journal, latched: bool) -> None:
        """Show what the arm does and why, what for, and how earlier instructions ended.

        Args:
            state: a key of words.STATES.
            reason: one line, or "".
            journal: instructions and outcomes.
            latched: an emergency stop is in force.
        """
        running = bool(journal.instruction)
        _write(self._status, words.status(state, reason, journal))
        _write(self._subtasks, words.subtasks(journal.subtasks, running))
        _write(self._outcomes, words.outcomes(journal))
        self._pause.disabled = not running and not journal.paused
        paused = bool(journal.paused) and not running
        label = "Resume" if paused else "Pause"
        if self._pause.label != label:
            self._pause.label = label
            self._pause.icon = viser.Icon.PLAYER_PLAY if paused else viser.Icon.PLAYER_PAUSE
        self._run.disabled = running
        self._release.visible = latched
        options = (_NOTHING, *journal.history)
        if tuple(self._history.options) != options:
            self._history.options = options

    def note(self, text: str) -> None:
        """Tell who typed something why it was not done; "" takes it back."""
        _write(self._note, words.note(text))

    def suggest(self, instruction: str) -> None:
        """Put an instruction into the box."""
        self._instruction.value = instruction  # type: ignore[misc]

    def simulated(self, yes: bool) -> None:
        """Offer what only a simulator can do, or do not."""
        self._new_scene.visible = yes

    def plots(self, series: Series) -> None:
        """Draw the plots anew."""
        for chart, plot in zip(CHARTS, self._plots, strict=True):
            columns = series.columns(chart)
            with self._server.atomic():
                plot.data = columns
                plot.scales = _scales(chart, columns)

    def interventions(self, counts: Mapping[str, int]) -> None:
        """Show what safety has done, and how often."""
        _write(self._interventions, words.interventions(counts))

    def _theme(self, gui: viser.GuiApi, dark: bool) -> None:
        gui.configure_theme(
            dark_mode=dark, show_logo=False, show_share_button=False, brand_color=_BRAND
        )

    def _add_views(
        self, cameras: Sequence[tuple[str, tuple[int, int]]]
    ) -> dict[str, viser.GuiImageHandle]:
        panel = self._gui.add_panel()
        panel.dock_left()
        panel.set_width(_LEFT)
        views = {}
        with panel.add_tab("What it sees", viser.Icon.CAMERA):
            for name, (width, height) in cameras:
                blank = np.full((height, width, 3), 40, np.uint8)
                views[name] = self._gui.add_image(
                    blank, label=name, format="jpeg", jpeg_quality=_JPEG_QUALITY
                )
            self._planner = self._gui.add_html(words.planner("", 0.0))
        return views

    def _add_control(self) -> None:
        self._gui.main_panel.dock_right()
        self._gui.main_panel.set_width(_RIGHT)
        self._status = self._gui.add_html(words.status("silent", "", Journal()))
        with self._gui.add_form(None) as form:
            self._instruction = self._gui.add_text(
                "Do", "", hint="what to do, in words; Enter sends it"
            )
            self._run = self._gui.add_button("Run", icon=viser.Icon.PLAYER_PLAY, color="green")
        self._note = self._gui.add_html("")
        self._pause = self._gui.add_button(
            "Pause", icon=viser.Icon.PLAYER_PAUSE, color="gray", disabled=True
        )
        self._new_scene = self._gui.add_button(
            "New scene", icon=viser.Icon.DICE_5, color="gray", visible=False
        )
        self._history = self._gui.add_dropdown("Again", (_NOTHING,))
        with self._gui.add_folder("Subtasks"):
            self._subtasks = self._gui.add_html(words.subtasks((), False))
        theme = self._gui.add_button("Light / dark", icon=viser.Icon.SUN_MOON, color="gray")
        self._run.on_click(lambda _: form.submit())
        form.on_submit(lambda _: self._controls.run(self._instruction.value))
        self._pause.on_click(lambda _: self._controls.pause())
        self._new_scene.on_click(lambda _: self._controls.new_scene())
        self._history.on_update(lambda _: self._take_again())
        theme.on_click(self._switch_theme)

    def _add_plots(self) -> None:
        panel = self._gui.add_panel()
        panel.dock_below(self._gui.main_panel)
        empty = Series(())
        with panel.add_tab("How well it does", viser.Icon.ACTIVITY):
            self._plots = [
                self._gui.add_uplot(
                    empty.columns(chart),
                    _series(chart),
                    title=chart.title,
                    scales=_scales(chart, empty.columns(chart)),
                    axes=_axes(),
                    legend={"show": len(chart.curves) > 1, "live": False},
                    cursor={"show": False},
                    height=chart.height,
                    padding=(8, 12, 0, 0),
                )
                for chart in CHARTS
            ]
            self._interventions = self._gui.add_html(words.interventions({}))
        with panel.add_tab("Log", viser.Icon.LIST_CHECK):
            self._outcomes = self._gui.add_html(words.outcomes(Journal()))

    def _add_stop(self) -> None:
        """The stop stands over everything else, outside of what scrolls."""
        panel = self._gui.add_panel()
        with panel.add_tab("Emergency stop", viser.Icon.ALERT_OCTAGON):
            stop = self._gui.add_button("STOP", icon=viser.Icon.HAND_STOP, color="red")
            self._release = self._gui.add_button(
                "Release the stop", icon=viser.Icon.LOCK_OPEN, color="gray", visible=False
            )
        panel.float(x=16, y=-16, width=230)
        stop.on_click(lambda _: self._controls.stop())
        self._release.on_click(lambda _: self._controls.release())
        command = self._gui.add_command(
            "Stop the robot", hotkey="escape", icon=viser.Icon.HAND_STOP
        )
        command.on_trigger(lambda _: self._controls.stop())

    def _take_again(self) -> None:
        if self._history.value != _NOTHING:
            self.suggest(self._history.value)
            self._history.value = _NOTHING  # type: ignore[misc]

    def _switch_theme(self, event: viser.GuiEvent[viser.GuiButtonHandle]) -> None:
        """Light or dark, for the browser that asked alone."""
        if event.client is None:
            return
        dark = not self._darkened.get(event.client.client_id, self._dark)
        self._darkened[event.client.client_id] = dark
        self._theme(event.client.gui, dark)


def _write(handle: viser.GuiHtmlHandle, content: str) -> None:
    """Send a piece of HTML only when it differs."""
    if handle.content != content:
        handle.content = content


def _series(chart: Chart) -> tuple[viser.uplot.Series, ...]:
    curves = [
        viser.uplot.Series(
            label=curve.label, stroke=curve.colour, width=1.5, points={"show": False}
        )
        for curve in chart.curves
    ]
    return (viser.uplot.Series(label="s"), *curves)


def _axes() -> tuple[viser.uplot.Axis, ...]:
    look = {"stroke": _AXIS, "grid": {"stroke": _GRID, "width": 1}, "ticks": {"show": False}}
    return (
        viser.uplot.Axis(**look, size=22),  # type: ignore[typeddict-item]
        viser.uplot.Axis(**look, size=44),  # type: ignore[typeddict-item]
    )


def _scales(chart: Chart, columns: Sequence[NDArray[np.float64]]) -> dict[str, viser.uplot.Scale]:
    """The last minute, and from 0 to a round number above all values."""
    values = np.concatenate(columns[1:])
    known = values[np.isfinite(values)]
    highest = max(chart.least, float(known.max()) if known.size else 0.0)
    magnitude = 10.0 ** np.floor(np.log10(highest))
    top = float(magnitude * next(step for step in (1, 2, 5, 10) if step * magnitude >= highest))
    return {
        "x": {"time": False, "auto": False, "range": (-SPAN, 0.0)},
        "y": {"auto": False, "range": (0.0, top)},
    }
