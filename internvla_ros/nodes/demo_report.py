"""What the demo measures and says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from internvla_ros.spatial.types import Box, Point


@dataclass
class SceneReport:
    """One instruction on one scene.

    Rates are in messages a second of wall time; delays, from the cameras' stamp to the first
    setpoint of the chunk made from it, are in s.
    """

    number: int
    seed: int
    instruction: str
    boxes: list[Box] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    control_rates: list[float] = field(default_factory=list)
    planner_rate: float = 0.0
    actor_rate: float = 0.0
    delays: list[float] = field(default_factory=list)
    real_time_factor: float = 1.0
    success: bool = False
    outcome: str = ""
    elapsed: float = 0.0

    @property
    def control_rate(self) -> float:
        """Median of what the arm said, Hz."""
        return float(np.median(self.control_rates)) if self.control_rates else 0.0

    def lines(self) -> list[str]:
        """The report, to be printed."""
        boxes = "  ".join(
            f"{box.label or '?'} [{box.x1:.0f} {box.y1:.0f} {box.x2:.0f} {box.y2:.0f}]"
            for box in self.boxes
        )
        points = "  ".join(
            f"{name} ({point.x:.0f}, {point.y:.0f})"
            for name, point in zip(("pick", "place"), self.points, strict=False)
        )
        mark = "done" if self.success else "failed"
        return [
            f"   boxes    {boxes or 'none'}",
            f"   points   {points or 'none'}",
            f"   rates    {rates(self.control_rate, self.planner_rate, self.actor_rate)}",
            f"   delay    camera stamp to setpoint {percentiles(self.delays)}",
            f"   outcome  {mark} after {self.elapsed:.1f} s: {self.outcome}",
        ]


@dataclass(frozen=True)
class DemoReport:
    """All scenes; times are s since the command was started."""

    scenes: Sequence[SceneReport]
    ready: float | None
    first_motion: float | None
    cpu: dict[str, float]
    """CPU share of each process while scenes ran, 1 = one core."""
    video: str

    @property
    def successes(self) -> int:
        """Scenes that ended well."""
        return sum(scene.success for scene in self.scenes)

    def summary(self) -> str:
        """One line."""
        delays = [delay for scene in self.scenes for delay in scene.delays]
        first = f"{self.first_motion:.1f} s" if self.first_motion is not None else "none"
        middle = [
            float(np.median([getattr(scene, name) for scene in self.scenes] or [0.0]))
            for name in ("control_rate", "planner_rate", "actor_rate")
        ]
        return (
            f"{self.successes} of {len(self.scenes)} done | {rates(*middle)} | camera to setpoint "
            f"{percentiles(delays)} | first motion after {first} | {self.video or 'no video'}"
        )

    def write_json(self, path: Path) -> None:
        """Everything measured, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        delays = [delay for scene in self.scenes for delay in scene.delays]
        document = {
            "scenes": [_scene_document(scene) for scene in self.scenes],
            "successes": self.successes,
            "stamp_to_setpoint_p50": _percentile(delays, 50),
            "stamp_to_setpoint_p95": _percentile(delays, 95),
            "ready": self.ready,
            "first_motion": self.first_motion,
            "cpu": self.cpu,
            "video": self.video,
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def rates(control: float, planner: float, actor: float) -> str:
    """Three rates in Hz, in words."""
    return f"control {control:.1f} Hz, planner {planner:.1f} Hz, actor {actor:.1f} Hz"


def percentiles(delays: Sequence[float]) -> str:
    """Median and 95th percentile of delays (s), in ms, in words."""
    if not delays:
        return "not seen"
    p50, p95 = (1000.0 * float(np.percentile(delays, p)) for p in (50, 95))
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms"


def _percentile(delays: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(delays, percent)) if delays else None


def _scene_document(scene: SceneReport) -> dict[str, object]:
    document = asdict(scene)
    del document["control_rates"], document["delays"]
    document["control_rate"] = scene.control_rate
    document["stamp_to_setpoint_p50"] = _percentile(scene.delays, 50)
    document["stamp_to_setpoint_p95"] = _percentile(scene.delays, 95)
    document["chunks"] = len(scene.delays)
    return document
