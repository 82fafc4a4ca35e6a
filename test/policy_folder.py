"""A folder that looks like a checkpoint, for what only looks whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "planner": {"qwen": {}},
    "vision": {"dinov2": {}},
    "qformer": {},
    "actor": {},
    "cameras": ["front", "wrist"],
}


def safetensors(size: int, announced: int) -> bytes:
    """A weights file of one tensor of `size` bytes whose header announces another number."""
    entry = {"dtype": "U8", "shape": [announced], "data_offsets": [0, announced]}
    header = json.dumps({"w": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def save_policy_folder(folder: Path) -> Path:
    """Write configuration and files without a network in them; the folder."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(safetensors(16, 16))
    (folder / "dataset_statistics.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder
