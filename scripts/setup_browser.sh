#!/usr/bin/env bash
# The browser that the dashboard's test drives: Chromium, where apt has it as a package of its own.
# Nothing depends on it but that test, which is skipped without it; so this never fails.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done

without() {
  say "no Chromium: $*; the test of the web page will be skipped"
  exit 0
}

command -v apt-get >/dev/null || without "there is no apt here"
as_root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || without "installing it takes root (apt-get install chromium)"
  as_root=(sudo -n)
fi
lock browser
has_package() { apt-cache show chromium >/dev/null 2>&1; }
has_package || "${as_root[@]}" apt-get update -qq || true
has_package || without "apt does not know a package of that name"
say "installing chromium with apt, for the test of the web page (some 110 MB to download)"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  chromium >&2 || without "apt could not install it"
