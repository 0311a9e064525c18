#!/usr/bin/env bash
# clang-format 14 over our C++: says what is wrong, or mends it with -i.
set -euo pipefail
. "$(dirname "$0")/../common.sh"
cd "$root"

formatter=clang-format-14
command -v "$formatter" >/dev/null || formatter=clang-format
case "$("$formatter" --version)" in
  *" version 14."*) ;;
  *) die "clang-format 14 is needed: other versions format differently" ;;
esac
mode=(--dry-run -Werror)
if [ "${1:-}" = -i ]; then mode=(-i); fi
wrong=$(find src bench tests third_party \( -name '*.h' -o -name '*.cc' \) -print0 |
  xargs -0 "$formatter" "${mode[@]}" 2>&1 | sed -n 's/^\([^:]*:[0-9]*\):.* error: .*/\1/p') || true
[ -z "$wrong" ] || { printf '%s\n' "$wrong" 'run ./dev fmt'; exit 1; }
