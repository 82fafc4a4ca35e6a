"""The model card of a recipe's policy: what it is, its data, its training and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvla_ros.evaluate.report import Proportion
from internvla_ros.train.settings import SIMPLE, Recipe

SHOWN = ("success", "grasp", "IoU", "inside", "trace", "point error")
"""Parts of the names of results that a card shows."""


@dataclass(frozen=True)
class Evidence:
    """What a card is written from.

    Attributes:
        recipe: as it was run.
        data: folder of the generated sets.
        seconds: how long each step took, by name.
        reports: files of the evaluations.
    """

    recipe: Recipe
    data: Path
    seconds: Mapping[str, float]
    reports: tuple[Path, ...]


def model_card(evidence: Evidence) -> str:
    """Markdown with the head that model hubs read."""
    recipe = evidence.recipe
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: internvla_ros",
        "pipeline_tag: robotics",
        "---",
        f"# {recipe.name}",
        "",
        f"InternVLA-M1's architecture at size {recipe.model.size}, trained by `internvla recipe` "
        "with this package's own engine and trainer.",
        "",
        "## Data",
        *_data(recipe),
        "",
        "## Training",
        *_training(evidence),
        "",
        "## Measured",
        *_measured(evidence.reports),
        "",
        "## Limits",
        "What was not in its data, other objects, cameras, tables or arms, is out of its "
        "distribution. Do not run a policy that has seen only a simulator on a real robot.",
    ]
    return "\n".join(lines) + "\n"


def _data(recipe: Recipe) -> list[str]:
    lines = ["| set | robot | episodes | snapshots | seed | share |", "|---|---|---|---|---|---|"]
    total = sum(s.weight for s in recipe.data.sets) or 1.0
    for s in recipe.data.sets:
        engine = " ".join(s.engine)
        lines.append(
            f"| {s.name}{f' `{engine}`' if engine else ''} | {s.robot} | {s.episodes} | "
            f"{s.snapshots} | {s.seed} | {100 * s.weight / total:.0f} % |"
        )
    return lines


def _training(evidence: Evidence) -> list[str]:
    lines = ["| step | optimizer steps | seed | hours |", "|---|---|---|---|"]
    stages: tuple[str, ...] = evidence.recipe.stages
    for name, seconds in evidence.seconds.items():
        steps, seed = "", ""
        if name in stages:
            loop = getattr(evidence.recipe, name).loop
            steps, seed = str(loop.steps), str(loop.seed)
        lines.append(f"| {name} | {steps} | {seed} | {seconds / 3600:.2f} |")
    return lines


def _measured(reports: tuple[Path, ...]) -> list[str]:
    if not reports:
        return ["Nothing."]
    contents = {path.parent.name: json.loads(path.read_text()) for path in reports}
    lines = ["| what | measured (95 % Wilson interval where counted) |", "|---|---|"]
    lines += [f"| {what} | {_words(value)} |" for what, value in _pooled(list(contents.values()))]
    for title, content in contents.items():
        for name, value in content["results"].items():
            if any(part in name for part in SHOWN):
                lines.append(f"| {title.replace('_', ' ')}: {name} | {_words(value)} |")
    return lines


def _pooled(contents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """What was counted in several reports of one kind, as one count."""
    groups: dict[tuple[str, str, str], list[Mapping[str, int]]] = {}
    for content in contents:
        suite = content["settings"].get("suite", "")
        for name, value in content["results"].items():
            if isinstance(value, Mapping) and "successes" in value:
                groups.setdefault((content["benchmark"], suite, name), []).append(value)
    for (benchmark, suite, name), counts in groups.items():
        if len(counts) > 1 and any(part in name for part in SHOWN):
            pooled = {key: sum(c[key] for c in counts) for key in ("successes", "trials")}
            yield f"all of {benchmark} {suite or SIMPLE}: {name}", pooled


def _words(value: Any) -> str:
    if isinstance(value, Mapping) and "successes" in value:
        return str(Proportion(int(value["successes"]), int(value["trials"])))
    if isinstance(value, Mapping):
        mean, (low, high) = value["mean"], value["bootstrap95"]
        return "unknown" if mean is None else f"{mean:.3g} ({low:.3g}..{high:.3g}, bootstrap)"
    return (
        "unknown" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    )
