#!/usr/bin/env bash
# Lint, types, then the tests, the quick ones first; all of them run, whatever fails before.
# Arguments go to pytest: scripts/test.sh test/test_cli.py -k help
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
leave_other_wheels
"$root/scripts/build_test_interfaces.sh"
"$root/scripts/setup_simulators.sh"
# shellcheck disable=SC1091
. "$root/env.bash"
interfaces=$root/build/test_interfaces/install/local_setup.bash
if [ -f "$interfaces" ]; then
  set +u
  # shellcheck disable=SC1090
  . "$interfaces"
  set -u
fi

# Plugins that a ROS 2 installation puts beside pytest are none of ours.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} LP_NUM_THREADS=${LP_NUM_THREADS:-1}

failed=()
run() {
  local name=$1
  shift
  say "$name"
  "$@" || failed+=("$name")
}
if [ $# -eq 0 ]; then
  run lint "$root/scripts/lint.sh"
fi
run tests python -m pytest "$@"

if [ ${#failed[@]} -gt 0 ]; then
  fail "failed: ${failed[*]} (${SECONDS} s)"
fi
say "all passed in $SECONDS s"
