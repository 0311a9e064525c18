#!/usr/bin/env bash
# ./dev test: every test there is, in seven stages; the last line is the sum.
#
#   scripts/test.sh                     all stages
#   scripts/test.sh STAGE [ARGUMENTS]   check unit release sim e2e isolation fuzz; arguments go on
#
# A stage that runs nothing has failed, and a skipped test counts as failed: silence proves nothing.
set -uo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

stages=(check unit release sim e2e isolation fuzz)
readonly fuzz_seconds=120
arguments=()
if [ $# -gt 0 ]; then
  case " ${stages[*]} " in
    *" $1 "*) stages=("$1") ;;
    *) die "no such part of the tests: $1 (${stages[*]})" ;;
  esac
  arguments=("${@:2}")
fi

passed=0 failed=0
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

give_up() {  # A run that cannot begin has failed, and says so in the same words.
  printf '0 passed, 1 failed\n'
  exit 1
}
packages=test
case " ${stages[*]} " in *" fuzz "*) packages=fuzz ;; esac
scripts/setup/packages.sh "$packages" || give_up
case "${stages[*]}" in
  unit | fuzz) ;;
  *) scripts/setup/llama.sh >/dev/null || give_up ;;
esac

count() {  # count PASSED FAILED: adds a stage to the sum
  stage_passed=${1:-0} stage_failed=${2:-0}
}

# Counts the lines of a script that says of each check `ok` or `FAIL`, and ends with 1 after a FAIL.
count_lines() {  # count_lines FILE STATUS
  local failures
  failures=$(grep -cE '^(FAIL|not ok) ' "$1")
  count "$(grep -c '^ok ' "$1")" $((failures + $(unexplained "$2" 1 "$failures")))
}

stage_check() {
  scripts/check/all.sh full 2>&1 | tee "$results/check"
  count_lines "$results/check" "${PIPESTATUS[0]}"
}

run_ctest() {  # run_ctest PRESET
  scripts/build.sh "$1" || { count 0 1; return; }
  ctest --test-dir "build/$1" --output-on-failure --no-tests=error --parallel "$(build_jobs)" \
    --output-junit "$results/$1.xml" ${arguments[@]+"${arguments[@]}"}
  # shellcheck disable=SC2046  # Two words on purpose.
  count $(junit_counts "$results/$1.xml" $? 8)
}

stage_unit() { run_ctest dev; }

stage_release() {
  scripts/setup/models.sh >/dev/null || { count 0 1; return; }
  run_ctest release
}

# Each seed of the simulated gateway is a test (tests/sim).
stage_sim() {
  scripts/build.sh release pensieve_sim || { count 0 1; return; }
  local status
  build/release/pensieve_sim ${arguments[@]+"${arguments[@]}"} | tee "$results/sim"
  status=${PIPESTATUS[0]}
  # shellcheck disable=SC2046  # Two words on purpose.
  count $(sed -n '$s/^\([0-9]*\) seeds passed, \([0-9]*\) failed.*/\1 \2/p' "$results/sim")
  stage_failed=$((stage_failed + $(unexplained "$status" 1 "$stage_failed")))
}

# What is slow runs in ./dev conformance only.
stage_e2e() {
  scripts/build.sh release template_render || { count 0 1; return; }
  scripts/pytest.sh tests -m "not slow" --junitxml="$results/e2e.xml" \
    ${arguments[@]+"${arguments[@]}"}
  # shellcheck disable=SC2046  # Two words on purpose.
  count $(junit_counts "$results/e2e.xml" $? 1)
}

stage_isolation() {
  scripts/build.sh release pensieve pensieve-worker || { count 0 1; return; }
  scripts/setup/models.sh >/dev/null || { count 0 1; return; }
  scripts/test-isolation.sh ${arguments[@]+"${arguments[@]}"} 2>&1 | tee "$results/isolation"
  count_lines "$results/isolation" "${PIPESTATUS[0]}"
  # An end before the script's own sum is a failure, whatever it had printed by then.
  tail -1 "$results/isolation" | grep -q ' passed, ' || stage_failed=$((stage_failed + 1))
}

# Each target is a test. They run side by side, so that two minutes of each take two minutes.
stage_fuzz() {
  local how=(all "$fuzz_seconds")
  if [ ${#arguments[@]} -gt 0 ]; then how=("${arguments[@]}"); fi
  scripts/fuzz.sh "${how[@]}" 2>&1 | tee "$results/fuzz"
  count_lines "$results/fuzz" "${PIPESTATUS[0]}"
}

summary=()
for stage in "${stages[@]}"; do
  say "=== $stage"
  started=$SECONDS
  stage_passed=0 stage_failed=0
  "stage_$stage" </dev/null
  if [ $((stage_passed + stage_failed)) = 0 ]; then
    say "The stage $stage ran no test; that is a failure."
    stage_failed=1
  fi
  passed=$((passed + stage_passed)) failed=$((failed + stage_failed))
  summary+=("$(printf '%-10s %4d passed, %d failed, %d s' "$stage" "$stage_passed" \
    "$stage_failed" $((SECONDS - started)))")
done

exec 2>&1  # The sum is the last line whatever the two streams are connected to.
printf '\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
