#!/usr/bin/env bash
# Builds build/PRESET, with what it needs set up first: scripts/build.sh [PRESET [TARGET...]]
#
# PRESET is release, dev, tsan or fuzz. Without a target all is built, the tests and benchmarks as
# well.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

preset="${1:-release}"
targets=("${@:2}")
case "$preset" in
  release | dev | tsan | fuzz) ;;
  *) die "no such preset: $preset (release, dev, tsan, fuzz)" ;;
esac

scripts/setup/packages.sh
if [ "$preset" = release ]; then scripts/setup/llama.sh >/dev/null; fi

export CCACHE_DIR="${CCACHE_DIR:-$cache_root/ccache}"
log="build/$preset.log"
mkdir -p build
test_model="$cache_root/models/SmolLM2-135M-Instruct.Q4_1.gguf"
cmake --preset "$preset" -DPENSIEVE_TEST_MODEL="$test_model" \
  >"$log" 2>&1 ||
  { tail -30 "$log" >&2; die "cmake --preset $preset failed"; }

how=(--build --preset "$preset" --parallel "$(build_jobs)")
if [ ${#targets[@]} -gt 0 ]; then how+=(--target "${targets[@]}"); fi
if [ -t 1 ]; then
  cmake "${how[@]}"
else
  # Without a terminal ninja writes one line per step; only a failure is worth them.
  started=$SECONDS
  cmake "${how[@]}" >"$log" 2>&1 ||
    { sed -n '/^FAILED:/,$p' "$log" | grep -v '^\[[0-9]*/[0-9]*\]' | head -60 >&2
      die "building $preset failed (all of it: $log)"; }
  say "Built $preset in $((SECONDS - started)) s."
fi
