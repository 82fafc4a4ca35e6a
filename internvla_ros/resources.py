"""Finding the files that ship with the package: configuration, robot descriptions, checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = "internvla_ros"
DEFAULT_CHECKPOINT = "checkpoints/nano"
"""The policy that ships."""


class ResourceError(RuntimeError):
    """A file that should ship with the package is not where it should be."""


def roots() -> list[Path]:
    """The folders that are searched, first match first.

    The source tree, when this module lies in one, stands before the installed share folders: the
    one of this module's own prefix (PREFIX/lib/python3.x/site-packages), then those of ROS.
    """
    found: list[Path] = []
    module = Path(__file__).resolve()
    source = module.parent.parent
    if (source / "package.xml").is_file() or (source / "config" / "robots").is_dir():
        found.append(source)
    own = module.parents[4] / "share" / PACKAGE if len(module.parents) > 4 else None
    if own is not None and own.is_dir():
        found.append(own)
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / PACKAGE
        if prefix and share.is_dir():
            found.append(share)
    return found


def resource(relative: str | Path) -> Path:
    """The path of a shipped file or folder, e.g. `resource("config/robots/widowx_250s.yaml")`."""
    searched = roots()
    for root in searched:
        path = root / relative
        if path.exists():
            return path
    places = ", ".join(str(root) for root in searched) or "no folder at all"
    raise ResourceError(
        f"cannot find {relative} of {PACKAGE} (searched {places}); "
        "build the package and source its set-up, or run from its source tree"
    )
