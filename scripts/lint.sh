#!/usr/bin/env bash
# Style (ruff), types (mypy), and what ament_lint checks on a full ROS 2 installation.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
leave_other_wheels
"$root/scripts/setup_linters.sh"
linters=build/linters/bin
mapfile -t pep257 < <(grep -v '^#' scripts/pep257.txt)

# The linters of ament, which tell of every file; only what is wrong matters.
ament() {
  local status=0 said
  "$linters/flake8" --jobs 1 || status=1
  for command in "ament_pep257 ${pep257[*]}" "ament_lint_cmake CMakeLists.txt test/interfaces"; do
    # shellcheck disable=SC2086
    said=$("$linters"/$command 2>&1) || {
      grep -v '^checking ' <<<"$said"
      status=1
    }
  done
  return $status
}

status=0
ament >build/linters/said.txt &
"$venv/bin/ruff" check || status=1
"$venv/bin/mypy" || status=1
wait $! || {
  cat build/linters/said.txt
  status=1
}
exit $status
