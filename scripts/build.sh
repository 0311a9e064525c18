#!/usr/bin/env bash
# Builds build/PRESET, with what it needs set up first: scripts/build.sh [release|dev|tsan]
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

preset="${1:-release}"
case "$preset" in
  release | dev | tsan) ;;
  *) die "no such preset: $preset (release, dev, tsan)" ;;
esac

scripts/setup/packages.sh
if [ "$preset" = release ]; then scripts/setup/llama.sh >/dev/null; fi

export CCACHE_DIR="${CCACHE_DIR:-$cache_root/ccache}"
log="build/$preset.log"
mkdir -p build
cmake --preset "$preset" -DPENSIEVE_TEST_MODEL="$cache_root/models/SmolLM2-135M-Instruct.Q4_1.gguf" \
  >"$log" 2>&1 ||
  { tail -30 "$log" >&2; die "cmake --preset $preset failed"; }

jobs=$(build_jobs)
if [ -t 1 ]; then
  cmake --build --preset "$preset" --parallel "$jobs"
else
  # Without a terminal ninja writes one line per step; only a failure is worth them.
  started=$SECONDS
  cmake --build --preset "$preset" --parallel "$jobs" >"$log" 2>&1 ||
    { grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)' "$log" | tail -60 >&2
      die "building $preset failed (all of it: $log)"; }
  say "Built $preset in $((SECONDS - started)) s."
fi
