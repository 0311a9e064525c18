#!/usr/bin/env bash
# ./dev conformance: the real server against the real clients; the last line is the sum.
#
#   scripts/conformance.sh                     every part
#   scripts/conformance.sh PART [ARGUMENTS]    one part; arguments go on to pytest
#
# A skipped test counts as failed, and so does a run that tested nothing: silence proves nothing.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

declare -A parts=(
  [sdk]="test_sdk*.py" [errors]="test_error_reactions.py test_claude_errors.py"
  [claude]="test_claude*.py" [openapi]="test_openapi.py" [fuzz]="test_fuzz.py"
  [templates]="test_templates.py" [calls]="test_generated_calls.py"
)
# The tests of the whole server that use the same clients belong to it too.
files=(tests/conformance tests/test_sdk_*.py tests/test_claude_code.py tests/test_tools.py)
arguments=()
if [ $# -gt 0 ]; then
  [ -n "${parts[$1]:-}" ] || die "no such part: $1 (${!parts[*]})"
  files=()
  for pattern in ${parts[$1]}; do files+=(tests/conformance/$pattern); done
  arguments=("${@:2}")
fi

give_up() {  # A run that cannot begin has failed, and says so in the same words.
  printf '0 passed, 1 failed\n'
  exit 1
}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
scripts/setup/packages.sh test || give_up
scripts/build.sh release template_render || give_up
scripts/fuzz.sh build || give_up

started=$SECONDS
scripts/pytest.sh "${files[@]}" --junitxml="$results/junit.xml" \
  ${arguments[@]+"${arguments[@]}"} </dev/null
read -r passed failed <<<"$(junit_counts "$results/junit.xml" $? 1)"
if [ $((passed + failed)) = 0 ]; then failed=1; fi

exec 2>&1  # The sum is the last line whatever the two streams are connected to.
printf 'conformance: %d s\n' $((SECONDS - started))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
