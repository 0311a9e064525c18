#!/usr/bin/env bash
# Compiles every header of src/ by itself, with the flags of our own targets: a header that leans
# on what its includer happens to include breaks the next one who includes it.
set -euo pipefail
. "$(dirname "$0")/../common.sh"
cd "$root"

prefix=$(scripts/setup/llama.sh)
flags=(-std=c++2b -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -Isrc
  -DBOOST_ASIO_NO_DEPRECATED -DBOOST_ASIO_SEPARATE_COMPILATION -DBOOST_BEAST_SEPARATE_COMPILATION
  # Set per target by CMake; any text does here.
  "-DPENSIEVE_VERSION=\"0\"" "-DPENSIEVE_WORKER_PROGRAM=\"worker\""
  "-DPENSIEVE_TEST_WORKER=\"worker\"")
for folder in include ggml/include common vendor src; do
  flags+=(-isystem "$prefix/source/$folder")
done
# The generated headers of the build (embedded files) are found there.
if [ -d build/release/generated ]; then flags+=(-Ibuild/release/generated); fi

one() {
  local header=$1
  shift
  printf '#include "%s"\n' "${header#src/}" | "${CXX:-g++}" "$@" -x c++ - ||
    { echo "$header does not compile alone"; return 1; }
}
export -f one
find src -name '*.h' -print0 |
  xargs -0 -P "$(build_jobs)" -I{} bash -c 'one "$@"' one {} "${flags[@]}"
