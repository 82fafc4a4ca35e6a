#!/usr/bin/env bash
# Build the test-only interface packages of test/interfaces into build/test_interfaces, which is
# never installed. Packages that the sourced ROS 2 has are left out: there the tests use the real
# ones.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

leave_other_wheels
set +u
# shellcheck disable=SC1091
. "$root/env.bash"
set -u
lock test_interfaces
out=build/test_interfaces

has() {
  local prefix
  for prefix in ${AMENT_PREFIX_PATH//:/ }; do
    [ ! -d "$prefix/share/$1" ] || return 0
  done
  return 1
}
missing=()
for folder in test/interfaces/*/; do
  name=$(basename "$folder")
  has "$name" || missing+=("$name")
done

wanted=$(
  {
    printf '%s\n' "$root" "$(cat "$venv/ros_setup")" "$("$venv/bin/python" -V)" "${missing[@]}"
    find test/interfaces -type f -print0 | LC_ALL=C sort -z | xargs -0 cat
  } | digest
)
if [ -f "$out/.built" ] && [ "$(cat "$out/.built")" = "$wanted" ]; then
  exit 0
fi
rm -rf "$out"
mkdir -p "$out" log
if [ ${#missing[@]} -gt 0 ]; then
  say "building the tests' own interface packages: ${missing[*]}"
  if ! colcon --log-base log build --base-paths test/interfaces --build-base "$out/build" \
    --install-base "$out/install" --packages-select "${missing[@]}" \
    --event-handlers console_direct- --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" \
    -DPYTHON_EXECUTABLE="$venv/bin/python" -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O0 -g0" "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -g0" -DBUILD_TESTING=OFF \
    >log/build_test_interfaces.txt 2>&1; then
    tail -n 40 log/build_test_interfaces.txt >&2
    fail "the tests' interface packages did not build" \
      "the whole output: log/build_test_interfaces.txt"
  fi
fi
printf '%s\n' "$wanted" >"$out/.built"
