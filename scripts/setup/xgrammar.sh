#!/usr/bin/env bash
# Gets xgrammar from its pinned source package, checks the hash, and builds it once into the cache.
#
# The cache key is version, recipe and compiler, so a change of any of them builds anew. Progress
# goes to stderr; the one line on stdout is the prefix, which has source/ and build/.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

readonly package=xgrammar version=0.2.8
readonly sha256=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80
readonly flags=(-DCMAKE_BUILD_TYPE=Release)

compiler="${CXX:-c++}"
key=$(printf '%s\n' "$sha256" "${flags[*]}" "$("$compiler" --version | head -1)" \
  "$(cat "$root/cmake/xgrammar/CMakeLists.txt")" | sha256_of - | cut -c1-12)
prefix="$cache_root/xgrammar-$version-$key"

lock "xgrammar-$version-$key"  # Two set-ups at once would build over each other.

if [ ! -f "$prefix/built" ]; then
  fetch_package "$package" "$version" "$sha256" "xgrammar ($version, 3 MB)"
  say "Unpacking ..."
  rm -rf "$prefix/source" && mkdir -p "$prefix/source"
  tar -xzf "$fetched" -C "$prefix/source" --strip-components=1
  say "Building xgrammar once (about a minute on 2 cores) ..."
  started=$SECONDS
  {
    cmake -S "$root/cmake/xgrammar" -B "$prefix/build" -G Ninja "${flags[@]}" \
      -DXGRAMMAR_SOURCE="$prefix/source" &&
      cmake --build "$prefix/build" --parallel "$(build_jobs)"
  } >"$prefix/build.log" 2>&1 ||
    { tail -40 "$prefix/build.log" >&2; die "building xgrammar failed"; }
  touch "$prefix/built"
  say "Built xgrammar in $((SECONDS - started)) s."
fi
printf '%s\n' "$prefix"
