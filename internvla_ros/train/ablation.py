"""What spatial guidance is worth: three arms, several seeds, one table."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvla_ros.evaluate.report import Proportion
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.guidance import ARMS, guided
from internvla_ros.train.loop import LATEST
from internvla_ros.train.pipeline import Machine, Pipeline
from internvla_ros.train.settings import Guidance, Recipe

COUNTED = ("success", "right object grasped")
TABLE, RAW = "ablation.md", "ablation.json"
TITLES: dict[Guidance, str] = {
    "none": "no spatial guidance",
    "stage1": "stage 1 alone",
    "full": "full recipe",
}


@dataclass(frozen=True)
class Ablation:
    """The runs of a comparison; data are shared by all, a seed's stage 1 by its arms.

    `recipe` is that of the full arm.
    """

    recipe: Recipe
    out: Path
    seeds: tuple[int, ...]
    arms: tuple[Guidance, ...] = ARMS

    def __post_init__(self) -> None:
        if not self.seeds or not self.arms:
            raise TrainingError("an ablation needs at least one seed and one arm")
        if "stage1" in self.arms and self.recipe.stage1 is None:
            raise TrainingError(f"the recipe {self.recipe.name} has no stage 1 to compare")

    def folder(self, arm: Guidance, seed: int) -> Path:
        """Where one run is."""
        return self.out / f"seed_{seed}" / arm

    def pipeline(self, arm: Guidance, seed: int, machine: Machine) -> Pipeline:
        """One run."""
        stage1 = None
        if arm == "stage1" and "full" in self.arms:
            stage1 = self.folder("full", seed) / "stage1" / LATEST
        return Pipeline(
            guided(self.recipe, arm, seed),
            self.folder(arm, seed),
            machine,
            data=self.out,
            stage1=stage1,
            points="predicted" if arm == "full" else "withheld",
        )

    def run(self, machine: Machine) -> bool:
        """Do what is left of all runs; False where the time was over first."""
        deadline = time.monotonic() + 60 * machine.minutes
        arms = sorted(self.arms, key=ARMS.index)  # full first: others take its stage 1
        for seed in self.seeds:
            for arm in arms:
                print(f"==== seed {seed}, {TITLES[arm]}")
                left = max(0.0, deadline - time.monotonic()) / 60
                if not self.pipeline(arm, seed, replace(machine, minutes=left)).run():
                    return False
        return True

    def results(self) -> dict[Guidance, list[Mapping[str, Any]]]:
        """Of each arm, the results of its reports, a mapping a seed; only what there is."""
        found: dict[Guidance, list[Mapping[str, Any]]] = {}
        for arm in self.arms:
            for seed in self.seeds:
                reports = sorted((self.folder(arm, seed) / "evaluation").glob("*/report.json"))
                own = {
                    path.parent.name: json.loads(path.read_text())["results"] for path in reports
                }
                if own:
                    found.setdefault(arm, []).append({"seed": seed, **own})
        return found

    def write(self) -> str:
        """The table as Markdown, which is also written beside the runs."""
        results = self.results()
        text = table(results)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / TABLE).write_text(text + "\n")
        (self.out / RAW).write_text(json.dumps(results, indent=1) + "\n")
        return text


def table(results: Mapping[Guidance, Sequence[Mapping[str, Any]]]) -> str:
    """Every count pooled over seeds with its Wilson interval, and each seed's share."""
    names = [
        (report, name)
        for report, name in dict.fromkeys(
            (report, name)
            for runs in results.values()
            for run in runs
            for report, values in run.items()
            if isinstance(values, Mapping)
            for name, value in values.items()
            if isinstance(value, Mapping) and "successes" in value
        )
        if report.startswith("grounding") or name in COUNTED
    ]
    lines = [
        "| what | arm | all seeds (95 % Wilson interval) | each seed |",
        "|---|---|---|---|",
    ]
    for report, name in names:
        for arm in sorted(results, key=ARMS.index, reverse=True):
            counts = [run[report][name] for run in results[arm] if name in run.get(report, {})]
            if not counts:
                continue
            pooled = Proportion(
                sum(c["successes"] for c in counts), sum(c["trials"] for c in counts)
            )
            each = ", ".join(f"{100 * (c['rate'] or 0):.1f}" for c in counts)
            what = f"{report.replace('_', ' ')}: {name}"
            lines.append(f"| {what} | {TITLES[arm]} | {pooled} | {each} |")
    return "\n".join(lines)
