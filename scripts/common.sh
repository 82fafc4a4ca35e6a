# Shared by the scripts beside it; sourced, not run.
# shellcheck shell=bash disable=SC2034

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

# fail MESSAGE [WHAT TO DO]...
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
  exit 1
}

# Forget the wheels of whatever virtual environment this shell has sourced: their libraries and
# paths are inherited by every child and do not fit a Python of another environment.
leave_other_wheels() {
  if [ -n "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH ROS_DISTRO ROS_VERSION
    unset ROS_PYTHON_VERSION AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
  fi
  unset PYTHONHOME VIRTUAL_ENV
}

# Print the prefix of the ROS 2 Jazzy installation that this shell has sourced; fail if none.
sourced_jazzy() {
  [ "${ROS_DISTRO:-}" = jazzy ] || return 1
  local prefixes prefix
  IFS=: read -ra prefixes <<<"${AMENT_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    if [ -f "$prefix/share/rclpy/package.xml" ] && [ -f "$prefix/setup.bash" ] &&
      [ ! -f "$prefix/pyvenv.cfg" ]; then
      printf '%s\n' "$prefix"
      return 0
    fi
  done
  return 1
}

# One of these at a time in this checkout: lock NAME
lock() {
  mkdir -p "$root/build"
  exec 9>"$root/build/.$1.lock"
  flock -n 9 || {
    say "waiting for another '$1' of this checkout"
    flock 9
  }
}

# A digest of what is on standard input.
digest() { sha256sum | cut -d' ' -f1; }
