"""A benchmark's report as Markdown, with a table of its tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvla_ros.evaluate.report import Proportion, Report, ReportError


def by_task(rows: Iterable[Mapping[str, Any]]) -> dict[str, Proportion]:
    """Successes of each task, in the order of the tasks' numbers; rows name task and success."""
    counts: dict[tuple[int, str], list[bool]] = {}
    for row in rows:
        key = (int(row["task"]), str(row["instruction"]))
        counts.setdefault(key, []).append(bool(row["success"]))
    return {
        f"{task} {instruction}": Proportion(sum(found), len(found))
        for (task, instruction), found in sorted(counts.items())
    }


def task_table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of the tasks' successes, with intervals."""
    lines = ["| task | successes | rate | 95 % interval |", "|---|---|---|---|"]
    for name, found in by_task(rows).items():
        low, high = found.interval
        lines.append(
            f"| {_cell(name)} | {found.successes}/{found.trials} | {100 * found.rate:.1f} % | "
            f"{100 * low:.1f} .. {100 * high:.1f} % |"
        )
    return lines


def markdown(report: Report, rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole report: results, tasks where the rows are of tasks, and settings."""
    state = "" if report.complete else " (interrupted: part of the trials)"
    lines = [f"# {report.benchmark}{state}", ""]
    lines += [f"- {name}: {value}" for name, value in report.results.items()]
    if any("task" in row for row in rows):
        lines += ["", *task_table(rows)]
    lines += ["", "| setting | value |", "|---|---|"]
    lines += [f"| {_cell(str(n))} | {_cell(str(v))} |" for n, v in report.settings.items()]
    return "\n".join(lines) + "\n"


def write_markdown(path: Path, report: Report, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write it, whole or not at all; raises ReportError where that is not possible."""
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(markdown(report, rows), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise ReportError(f"cannot write the report {path}: {error.strerror}") from error


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
