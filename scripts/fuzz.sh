#!/usr/bin/env bash
# ./dev fuzz: libFuzzer on the parsers that strangers reach, with AddressSanitizer and UBSan.
#
#   scripts/fuzz.sh [all [SECONDS]]     the targets side by side, for 60 s
#   scripts/fuzz.sh TARGET [SECONDS]    request or frame, that long
#   scripts/fuzz.sh build               builds the targets
#
# One line for each target, `ok` or `FAIL`, and 1 after a FAIL. What is found stays in
# build/fuzz/found-TARGET/, and the corpus grows in build/fuzz/corpus-TARGET/ from run to run. The
# seeds are made anew each time from the sources of the unit tests.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

readonly all=(request frame)
# Fewer inputs mean that the fuzzer did not get to work: a fifth of what a busy core does.
readonly inputs_per_second_least=100
case "${1:-all}" in
  all | build) targets=("${all[@]}") ;;
  request | frame) targets=("$1") ;;
  *) die "no such fuzz target: $1 (${all[*]})" ;;
esac
seconds="${2:-60}"

if [ -z "${PENSIEVE_FUZZ_IS_BUILT:-}" ]; then
  scripts/setup/packages.sh fuzz
  scripts/build.sh fuzz "${targets[@]/#/fuzz_}"
fi
if [ "${1:-}" = build ]; then exit 0; fi

fuzz() {  # fuzz TARGET
  local folder=build/fuzz log="build/fuzz/run-$1.log" status=0 inputs
  rm -rf "$folder/seeds-$1" && mkdir -p "$folder/corpus-$1" "$folder/found-$1"
  "$python" tests/fuzz/make_corpus.py "$1" "$folder/seeds-$1" >/dev/null || return 1
  # Bounds of one input: 64 KiB, 10 s, 1 GiB; a breach of one counts as found.
  "$folder/fuzz_$1" "$folder/corpus-$1" "$folder/seeds-$1" -max_total_time="$seconds" \
    -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$folder/found-$1/" >"$log" 2>&1 || status=$?
  inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ "$status" = 0 ] && [ "${inputs:-0}" -ge $((seconds * inputs_per_second_least)) ]; then
    printf 'ok    fuzzing %s: %d inputs in %d s, nothing found\n' "$1" "$inputs" "$seconds"
  else
    grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE|pulse|RELOAD)' "$log" | tail -80 | sed 's/^/      /'
    printf 'FAIL  fuzzing %s: %d inputs in %d s, status %d\n' \
      "$1" "${inputs:-0}" "$seconds" "$status"
    return 1
  fi
}

say "Fuzzing ${targets[*]} for $seconds s ..."
runs=() failed=0
for target in "${targets[@]}"; do
  fuzz "$target" &
  runs+=($!)
done
for run in "${runs[@]}"; do wait "$run" || failed=1; done
exit "$failed"
