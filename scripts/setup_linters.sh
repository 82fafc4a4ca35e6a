#!/usr/bin/env bash
# The linters of ament_lint in a virtual environment of their own (build/linters), for where no
# ROS 2 installation has them. flake8 stands for ament_flake8, whose release on the package index
# wants an older one; its plugins are those that come with ament_flake8.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

leave_other_wheels
lock linters
out=build/linters
wanted=$(printf '%s\n' "$root" "$("$venv/bin/python" -V)" "$(cat scripts/setup_linters.sh)" | digest)
if [ -f "$out/.built" ] && [ "$(cat "$out/.built")" = "$wanted" ]; then
  exit 0
fi
say "setting up the linters in $out"
rm -rf "$out"
"$venv/bin/python" -m venv "$out"
install() {
  "$out/bin/python" -m pip install --disable-pip-version-check -qq --progress-bar off "$@" ||
    fail "pip could not install the linters" "is the package index within reach?"
}
install flake8==7.3.0 flake8-blind-except==0.2.1 flake8-builtins==3.1.0 \
  flake8-class-newline==1.6.0 flake8-comprehensions==3.16.0 flake8-deprecated==2.2.1 \
  flake8-import-order==0.19.2 flake8-quotes==3.4.0 pydocstyle==6.3.0 setuptools==79.0.1
install --no-deps ament-lint==0.14.2 ament-lint-cmake-py==0.14.2 ament-lint-pep257==0.14.3
printf '%s\n' "$wanted" >"$out/.built"
