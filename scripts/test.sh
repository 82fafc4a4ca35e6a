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
tests() {
  python -m pytest "$@" && return
  # Nothing but tests of processes that did not find each other in time on a busy machine? A whole
  # run then gives those a second chance, alone, and says so; like colcon's --retest-until-pass.
  [ $# -eq 0 ] || return 1
  local others=0
  python -m pytest --last-failed -m "not integration" --collect-only >/dev/null 2>&1 || others=$?
  [ $others -eq 5 ] || return 1 # 5: no such test
  say "tests of processes failed: these once more, alone"
  python -m pytest --last-failed -m integration || return 1
  second=" (those above at the second attempt)"
}
second=
run tests tests "$@"

if [ ${#failed[@]} -gt 0 ]; then
  fail "failed: ${failed[*]} (${SECONDS} s)"
fi
say "all passed$second in $SECONDS s"
