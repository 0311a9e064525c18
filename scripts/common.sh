# Shared by the scripts: sourced, never run. Progress and errors go to stderr, results to stdout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache_root="${XDG_CACHE_HOME:-$HOME/.cache}/pensieve"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

sha256_of() {  # sha256_of FILE, or - for stdin
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi |
    cut -d' ' -f1
}

# Any Python 3.11 or later; PYTHON names another one.
python="${PYTHON:-python3}"

# Compiler jobs: one per core, but no more than one per 2 GiB that is available (a Boost.Beast
# translation unit takes about 1.5 GiB with the sanitizers).
build_jobs() {
  local cores available_kib
  cores=$(getconf _NPROCESSORS_ONLN)
  available_kib=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null)
  if [ -n "$available_kib" ] && [ $((available_kib / 2097152)) -lt "$cores" ]; then
    cores=$((available_kib / 2097152))
  fi
  [ "$cores" -ge 1 ] || cores=1
  printf '%s\n' "$cores"
}

# One set-up at a time per cache entry; macOS has no flock and goes without.
lock() {  # lock NAME
  mkdir -p "$cache_root"
  exec 9>"$cache_root/$1.lock"
  if command -v flock >/dev/null; then flock 9; fi
}

# 1 where a run ended badly and the failures that were counted do not say why, which is one failure
# more: what ends early has counted only what came before. Else 0.
unexplained() {  # unexplained STATUS STATUS-OF-FAILED-TESTS FAILURES-COUNTED
  if [ "$1" = 0 ] || { [ "$1" = "$2" ] && [ "$3" -gt 0 ]; }; then echo 0; else echo 1; fi
}

# "PASSED FAILED" of a run whose results are in a JUnit file. What did not run or did not pass is a
# failure, and so is a file that is not there, and an end that no failure explains.
junit_counts() {  # junit_counts FILE STATUS STATUS-OF-FAILED-TESTS
  local counts passed failed
  counts=$("$python" "$root/scripts/junit_count.py" "$1" 2>/dev/null) || { echo 0 1; return; }
  read -r passed failed <<<"$counts"
  printf '%d %d\n' "$passed" $((failed + $(unexplained "$2" "$3" "$failed")))
}

# Downloads a source package once and checks its hash; leaves its path in `fetched`.
fetch_package() {  # fetch_package NAME VERSION SHA256 WORDS-FOR-PEOPLE
  local folder="$cache_root/downloads"
  fetched="$folder/$1-$2.tar.gz"
  mkdir -p "$folder"
  if [ -f "$fetched" ] && [ "$(sha256_of "$fetched")" = "$3" ]; then return 0; fi
  say "Downloading $4 ..."
  rm -f "$fetched"
  "$python" -m pip download --no-deps --no-binary "$1" --dest "$folder" "$1==$2" >&2 ||
    die "pip could not download $1==$2"
  [ "$(sha256_of "$fetched")" = "$3" ] ||
    die "$fetched does not have the pinned sha256; delete it and run again"
}
