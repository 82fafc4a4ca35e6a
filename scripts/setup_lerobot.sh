#!/usr/bin/env bash
# LeRobot's own readers of datasets, for the tests that compare ours with them: in build/lerobot, a
# virtual environment over .venv (whose torch it uses), as their pins clash with ours. `make test`
# does without; this is for those who change how datasets are read or written.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

leave_other_wheels
lock lerobot
out=build/lerobot
wanted=$(printf '%s\n' "$root" "$("$venv/bin/python" -V)" "$(cat scripts/setup_lerobot.sh)" | digest)
if [ -f "$out/.built" ] && [ "$(cat "$out/.built")" = "$wanted" ]; then
  exit 0
fi
[ -x "$venv/bin/python" ] || fail "there is no $venv" "run: make build"
say "setting up LeRobot's readers in $out"
rm -rf "$out"
"$venv/bin/python" -m venv "$out"
# What .venv has need not be installed again; what is installed here comes first.
"$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  >"$("$out/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz_project.pth"
install() {
  "$out/bin/python" -m pip install --disable-pip-version-check --no-warn-conflicts -qq \
    --progress-bar off "$@" ||
    fail "pip could not install LeRobot's readers" "is the package index within reach?"
}
install datasets==4.8.5 huggingface-hub==0.35.3 pandas==3.1.1
# --no-deps: of LeRobot only its datasets are used; its pins would bring another torch.
install --no-deps lerobot==0.4.4 torchvision==0.28.0
# The last release that reads v2.1, with the libraries of its time.
install --no-deps --target "$out/v2.1" lerobot==0.3.3 datasets==3.6.0 jsonlines==4.0.0 \
  dill==0.3.8 multiprocess==0.70.16 fsspec==2025.3.0
printf '%s\n' "$wanted" >"$out/.built"
