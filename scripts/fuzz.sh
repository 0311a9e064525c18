#!/usr/bin/env bash
# ./dev fuzz: libFuzzer on the parsers that strangers reach, with AddressSanitizer and UBSan.
#
#   scripts/fuzz.sh                     each target for 60 s
#   scripts/fuzz.sh TARGET [SECONDS]    request or frame, that long
#   scripts/fuzz.sh build               builds the targets
#
# What is found stays in build/fuzz/found-TARGET/, and the corpus grows in build/fuzz/corpus-TARGET/
# from run to run. The seeds are made anew each time from the sources of the unit tests.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

readonly all=(request frame)
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

for target in "${targets[@]}"; do
  corpus="build/fuzz/corpus-$target" found="build/fuzz/found-$target/"
  mkdir -p "$corpus" "$found"
  seeds=$(mktemp -d)
  trap 'rm -rf "$seeds"' EXIT
  "$python" tests/fuzz/make_corpus.py "$target" "$seeds" >/dev/null
  say "Fuzzing $target for $seconds s ..."
  # Bounds of one input: 64 KiB, 10 s, 1 GiB; a breach of one counts as found.
  "build/fuzz/fuzz_$target" "$corpus" "$seeds" -max_total_time="$seconds" -max_len=65536 \
    -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$found" 2>&1 |
    grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE|pulse|RELOAD)'
done
