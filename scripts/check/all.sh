#!/usr/bin/env bash
# ./dev check: everything that can be said of the source without running the server.
#
#   all.sh        the source checks, then the sanitizer build and its tests
#   all.sh full   the source checks, and that each header compiles alone
#   all.sh lint   the source checks only
set -uo pipefail
. "$(dirname "$0")/../common.sh"
cd "$root"

mode="${1:-default}"
case "$mode" in
  default | full | lint) ;;
  *) die "no such check: $mode (full, lint)" ;;
esac
scripts/setup/packages.sh check || exit 1

passed=0 failed=0
item() {  # item SENTENCE COMMAND...
  local sentence=$1 output
  shift
  if output=$("$@" 2>&1); then
    say "ok    $sentence"
    passed=$((passed + 1))
  else
    say "FAIL  $sentence"
    printf '%s\n' "$output" | sed 's/^/      /' >&2
    failed=$((failed + 1))
  fi
}

item "the C++ code is formatted" scripts/check/format.sh
item "folders include and link only what the table allows" "$python" scripts/check/includes.py
item "nothing on the ban list is used" "$python" scripts/check/bans.py
item "the table of limits is what the code says" "$python" scripts/check/limits.py
item "the checks themselves find what they must" "$python" scripts/check/self_test.py
if [ -x build/release/pensieve ]; then
  item "the gateway program links no engine" scripts/check/no_engine.sh build/release/pensieve
fi
if [ "$mode" = full ]; then
  item "each header compiles alone" scripts/check/headers.sh
fi
if [ "$mode" = default ]; then
  item "the sanitizer build builds" scripts/build.sh dev
  item "the unit tests pass under the sanitizers" \
    ctest --test-dir build/dev --output-on-failure --no-tests=error --parallel "$(build_jobs)"
fi

say "check: $passed passed, $failed failed"
[ "$failed" = 0 ]
