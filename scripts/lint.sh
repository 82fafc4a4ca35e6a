#!/usr/bin/env bash
# Style (ruff) and types (mypy).
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
leave_other_wheels
status=0
"$venv/bin/ruff" check || status=1
"$venv/bin/mypy" || status=1
exit $status
