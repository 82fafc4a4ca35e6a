"""Writing a folder of files so that no half-written one is ever seen under its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files, in folders of their own or not, are moved into `folder`.

    Nothing is moved where the block raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        temporary = Path(scratch)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.chmod(0o644)  # safetensors writes for the owner alone
                os.replace(path, target)
