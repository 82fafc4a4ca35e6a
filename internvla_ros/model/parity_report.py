"""A recorded reference against this implementation, as a table of worst differences."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from internvla_ros.model.parity import Array, Reference, expected, numbers
from internvla_ros.model.policy import Policy
from internvla_ros.model.released import released_state_dict_shapes
from internvla_ros.model.released_names import Family, family_of
from internvla_ros.model.sizes import released_config

TOLERANCES: tuple[tuple[str, float], ...] = (
    (r"input_ids|attention_mask|image_grid_thw|position_ids|.*timestep_map", 0.0),
    (r"visual\.(window_index|cu_window_seqlens)|chat\..*|train_no_grad", 0.0),
    (r"pixel_values_.*|dino_input_.*|visual\.rotary_angles|dino\.pos_embed.*", 1e-6),
    (r"image_embeds|dino_projected", 2e-5),
    (r"hidden_states|logits_last", 1e-4),
    (r"dino_features|qformer_out", 5e-5),
    (r"schedule\.(timestep_embedding|t_embedder)", 2e-5),
    (r"schedule\..*", 1e-12),
    (r".*normalized_actions|.*ddim\d+\.x|.*eps_t\d+|.*\.actions\..*|unnorm\..*", 2e-5),
    (r"train\.\w+\.(x_t|noise_pred)", 2e-5),
)
"""By an array's name without its sample: the largest absolute difference allowed."""
RELATIVE = re.compile(r"train\.\w+\.(loss|grad\..*)|train_grad_l2")
RELATIVE_TOLERANCE = 1e-4
"""Of losses and gradients, as a share of the largest recorded value (of each norm)."""
CLEAN_TOLERANCE = 2e-5
"""Of the clean chunk that a noise prediction implies, before the noise level magnifies it."""


@dataclass(frozen=True)
class Row:
    """One array (of one or all samples): how far it is off, and how far it may be."""

    name: str
    count: int
    difference: float
    tolerance: float
    relative: bool = False
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is near enough."""
        return not self.problem and self.difference <= self.tolerance


def compare(folder: Path, *, verbose: bool = False) -> list[Row]:
    """All rows of a reference; raises what reading it and its run raises."""
    reference = Reference.read(folder)
    policy = Policy.from_pretrained(folder / "run")
    computed = dict(numbers(policy, reference))
    rows = [
        _row(name, array, computed.get(name), reference)
        for name, array in expected(reference).items()
    ]
    rows += _key_rows(policy, folder)
    return rows if verbose else merged(rows, set(reference.samples))


def _row(name: str, recorded: Array, ours: Array | None, reference: Reference) -> Row:
    head, _, rest = name.partition(".")
    kind = rest if head in reference.samples or head == "batch" else name
    relative = RELATIVE.fullmatch(kind) is not None
    tolerance = RELATIVE_TOLERANCE if relative else _tolerance(kind)
    if ours is None:
        return Row(name, 1, np.inf, tolerance, relative, "not computed")
    if ours.shape != recorded.shape:
        problem = f"shape {list(ours.shape)} instead of {list(recorded.shape)}"
        return Row(name, 1, np.inf, tolerance, relative, problem)
    difference = np.abs(ours.astype(np.float64) - recorded.astype(np.float64))
    if name == "train_grad_l2":
        difference = difference / np.abs(recorded)
    elif relative:
        difference = difference / max(float(np.abs(recorded).max()), 1e-30)
    elif kind.endswith("pred_xstart"):
        difference = difference / _magnified(kind, reference)
    worst = float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
    return Row(name, 1, worst, tolerance, relative)


def _magnified(kind: str, reference: Reference) -> Array:
    """How much an error in the noise grows at every step, [steps, 1, 1, 1]."""
    steps = re.search(r"ddim(\d+)", kind)
    assert steps is not None
    alphas = reference.arrays[f"schedule.ddim{steps[1]}.alphas_cumprod"][::-1]
    growth = np.maximum(1.0, 1.0 / np.sqrt(alphas))
    return growth.reshape(-1, 1, 1, 1)


def _tolerance(kind: str) -> float:
    if kind.endswith("pred_xstart"):
        return CLEAN_TOLERANCE
    for pattern, tolerance in TOLERANCES:
        if re.fullmatch(pattern, kind):
            return tolerance
    raise ValueError(f"no tolerance is stated for the array {kind}")


def _key_rows(policy: Policy, folder: Path) -> list[Row]:
    """Names and shapes of the run's entries, and of the real-size model's."""
    rows = []
    if (folder / "state_dict_keys.json").is_file():
        listed = json.loads((folder / "state_dict_keys.json").read_text())
        ours = released_state_dict_shapes(policy.config, family_of([n for n, *_ in listed]))
        wanted = {name: tuple(shape) for name, shape, *_ in listed}
        rows.append(_keys("state_dict_keys", ours, wanted))
    real = folder / "keys" / "real_size_state_dict.json"
    if real.is_file():
        entries = json.loads(real.read_text())
        families: tuple[tuple[str, str, Family], ...] = (
            ("real_size_keys", "key", "new"),
            ("real_size_keys_before_4.52", "key_with_transformers_le_4_51", "old"),
        )
        for name, column, family in families:
            ours = released_state_dict_shapes(released_config("3b"), family)
            rows.append(_keys(name, ours, {e[column]: tuple(e["shape"]) for e in entries}))
    return rows


def _keys(name: str, ours: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> Row:
    differing = {n for n in ours.keys() | wanted.keys() if ours.get(n) != wanted.get(n)}
    return Row(name, len(wanted), float(len(differing)), 0.0)


def merged(rows: Sequence[Row], samples: set[str]) -> list[Row]:
    """The same arrays of all samples as one row each, with the worst of them."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        head, _, rest = row.name.partition(".")
        groups.setdefault(f"s*.{rest}" if head in samples else row.name, []).append(row)
    return [
        Row(
            name,
            sum(row.count for row in group),
            max(row.difference for row in group),
            group[0].tolerance,
            group[0].relative,
            next((row.problem for row in group if row.problem), ""),
        )
        for name, group in groups.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Aligned lines."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'array':{width}}  {'arrays':>6}  {'worst':>9}  {'allowed':>9}"]
    for row in rows:
        kind = " relative" if row.relative else ""
        verdict = "ok" if row.passed else f"FAILED {row.problem}".rstrip()
        lines.append(
            f"{row.name:{width}}  {row.count:6}  {row.difference:9.2e}  {row.tolerance:9.1e}  "
            f"{verdict}{kind}"
        )
    return "\n".join(lines)
