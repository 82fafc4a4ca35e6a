"""The page's words as HTML. All text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from internvla_ros.dashboard.journal import Journal, Outcome

STATES = {
    "silent": ("#7a828e", "no word from the arm"),
    "idle": ("#5b8def", "ready"),
    "running": ("#2fa84f", "moving"),
    "holding": ("#e8930c", "holding"),
    "stopped": ("#d64545", "stopped"),
    "fault": ("#d64545", "fault"),
    "emergency": ("#d64545", "emergency stop"),
}
"""What the arm does -> its colour and its name on the page."""

_DIM = "opacity:.65"
_SMALL = "font-size:.8rem;line-height:1.4"


def _block(content: str, style: str = "") -> str:
    """A piece of the page with the margins that viser gives its own."""
    return f'<div style="padding:.15rem .75rem .35rem;{_SMALL};{style}">{content}</div>'


def status(state: str, reason: str, journal: Journal) -> str:
    """What the arm does, in its colour, and what for."""
    colour, name = STATES[state]
    chip = (
        f'<span id="arm-state" data-state="{escape(state)}" style="background:{colour};'
        f"color:#fff;border-radius:1rem;padding:.15rem .7rem;font-weight:600;"
        f'white-space:nowrap">{name}</span>'
    )
    doing = journal.instruction or (f"paused: {journal.paused}" if journal.paused else "")
    clock = f"{journal.elapsed:.0f} s" if journal.instruction else ""
    why = f'<div style="color:{colour};padding-top:.3rem">{escape(reason)}</div>' if reason else ""
    head = (
        '<div style="display:flex;gap:.6rem;align-items:baseline">'
        f'{chip}<span style="flex:1;font-weight:500">{escape(doing)}</span>'
        f'<span style="{_DIM};white-space:nowrap">{clock}</span></div>'
    )
    return _block(head + why)


def note(text: str) -> str:
    """A line for who typed something that could not be done."""
    return _block(f'<div id="note" style="color:#e8930c">{escape(text)}</div>') if text else ""


def subtasks(parts: Sequence[str], running: bool) -> str:
    """The parts of the instruction: those done, and the one that is being done."""
    if not parts:
        return _block(f'<span style="{_DIM}">nothing is being done</span>')
    lines = []
    for number, part in enumerate(parts, 1):
        present = running and number == len(parts)
        mark, style = ("&#9654;", "font-weight:600") if present else ("&#10003;", _DIM)
        lines.append(
            f'<div style="display:flex;gap:.5rem;{style}"><span style="color:#2fa84f">{mark}'
            f"</span><span>{escape(part)}</span></div>"
        )
    return _block("".join(lines))


def planner(text: str, latency: float) -> str:
    """The planner's own words."""
    if not text:
        return _block(f'<span style="{_DIM}">the planner has not spoken yet</span>')
    said = escape(text)
    body = (
        '<div id="planner-text" style="font-family:ui-monospace,monospace;font-size:.72rem;'
        'max-height:9rem;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere">'
        f"{said}</div>"
    )
    thought = f'<div style="{_DIM};font-size:.7rem">thought {latency * 1e3:.0f} ms</div>'
    return _block(body + thought)


def interventions(counts: Mapping[str, int]) -> str:
    """What safety has done since the arm's node began, by name."""
    named = sorted(each for each in counts.items() if each[1])
    told = " &middot; ".join(f"{escape(name)}&nbsp;<b>{count}</b>" for name, count in named)
    words = told or "safety has not had to step in"
    return _block(f'<span style="{_DIM};font-size:.72rem">{words}</span>')


def outcomes(journal: Journal) -> str:
    """How instructions ended, the newest first."""
    total = journal.done + journal.failed
    head = f"<b>{journal.done}</b> of <b>{total}</b> done" if total else "nothing has ended yet"
    rows = "".join(_row(each) for each in journal.outcomes)
    table = f'<table style="width:100%;border-collapse:collapse;font-size:.75rem">{rows}</table>'
    return _block(f'<div style="padding-bottom:.3rem">{head}</div>{table}')


def _row(outcome: Outcome) -> str:
    kind = "stopped" if outcome.stopped else "done" if outcome.success else "failed"
    mark, colour = {
        "done": ("&#10003;", "#2fa84f"),
        "failed": ("&#10007;", "#d64545"),
        "stopped": ("&#9632;", "#7a828e"),
    }[kind]
    why = "" if outcome.success else f'<div style="{_DIM}">{escape(outcome.message)}</div>'
    cell = "vertical-align:top;padding:.2rem .3rem;border-top:1px solid rgba(128,128,128,.25)"
    return (
        f'<tr data-outcome="{kind}"><td style="{cell};color:{colour};font-weight:700">{mark}</td>'
        f'<td style="{cell};width:100%">{escape(outcome.instruction)}{why}</td>'
        f'<td style="{cell};{_DIM};white-space:nowrap;text-align:right">{outcome.elapsed:.0f} s'
        f"<br>{escape(outcome.clock)}</td></tr>"
    )
