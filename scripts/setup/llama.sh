#!/usr/bin/env bash
# Gets llama.cpp from its pinned source package, checks the hash, and builds it once into the cache.
#
#   scripts/setup/llama.sh            builds libllama, ggml, llama-common and mtmd (images); prints
#                                     the prefix
#   scripts/setup/llama.sh server     builds llama-server from the same source as well (bench only)
#
# The cache key is version, flags, compiler and processor, so a change of any of them builds anew.
# Progress goes to stderr; the one line on stdout is the prefix, which has source/ and build/.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

readonly package=llama_cpp_python version=0.3.36
readonly sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
readonly flags=(
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  -DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF
  -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_UI=OFF
)

processor_flags() {
  { grep -m1 -E '^(model name|flags)' /proc/cpuinfo; grep -m1 '^flags' /proc/cpuinfo; } \
    2>/dev/null ||
    sysctl -n machdep.cpu.brand_string 2>/dev/null || uname -m
}

compiler="${CXX:-c++}"
key=$(printf '%s\n' "$sha256" "${flags[*]}" "$("$compiler" --version | head -1)" \
  "$(processor_flags)" | sha256_of - | cut -c1-12)
prefix="$cache_root/llama-$version-$key"

fetch_source() {
  fetch_package "$package" "$version" "$sha256" "llama.cpp ($package $version, 77 MB)"
  say "Unpacking ..."
  rm -rf "$prefix.unpack" && mkdir -p "$prefix.unpack" "$prefix"
  tar -xzf "$fetched" -C "$prefix.unpack" --strip-components=1
  rm -rf "$prefix/source"
  mv "$prefix.unpack/vendor/llama.cpp" "$prefix/source"
  rm -rf "$prefix.unpack"
}

build() {  # build TARGET...
  cmake -S "$prefix/source" -B "$prefix/build" -G Ninja "${flags[@]}" \
    >"$prefix/configure.log" 2>&1 ||
    { tail -20 "$prefix/configure.log" >&2; die "configuring llama.cpp failed"; }
  if [ -t 2 ]; then
    cmake --build "$prefix/build" --target "$@" >&2
  else
    # One line every few hundred steps would be lost in a log; a failure shows the end of it.
    cmake --build "$prefix/build" --target "$@" >"$prefix/build.log" 2>&1 ||
      { tail -40 "$prefix/build.log" >&2; die "building llama.cpp failed"; }
  fi
}

lock "llama-$version-$key"  # Two set-ups at once would build over each other.

if [ ! -f "$prefix/built" ]; then
  fetch_source
  say "Building llama.cpp once (3 to 6 minutes on 2 cores) ..."
  started=$SECONDS
  build llama llama-common
  touch "$prefix/built"
  say "Built llama.cpp in $((SECONDS - started)) s."
fi
# A mark of its own: caches that were made without it only lack this.
if [ ! -f "$prefix/built-mtmd" ]; then
  say "Building llama.cpp's image encoder (1 to 2 minutes on 2 cores) ..."
  build mtmd
  touch "$prefix/built-mtmd"
fi
if [ "${1:-}" = server ] && [ ! -f "$prefix/built-server" ]; then
  say "Building llama-server from the same source (2 to 4 minutes on 2 cores) ..."
  build llama-server
  touch "$prefix/built-server"
fi
printf '%s\n' "$prefix"
