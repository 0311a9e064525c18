#!/usr/bin/env bash
# ./dev smoke: from whatever is there to one real answer, shown with its figures.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

scripts/build.sh release pensieve pensieve-worker
scripts/setup/models.sh >/dev/null
exec "$python" scripts/smoke.py "$@"
