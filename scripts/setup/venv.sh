#!/usr/bin/env bash
# A Python environment of the tests and benchmarks, in the cache; prints its folder. The key is
# the pinned requirements and the interpreter, so a change of either makes a new one.
#
#   venv.sh              what the tests and benchmarks run in, tests/requirements.txt
#   venv.sh REQUIREMENTS an environment of another file, e.g. tests/clients/old/requirements.txt
set -euo pipefail
. "$(dirname "$0")/../common.sh"

readonly requirements="$root/${1:-tests/requirements.txt}"
[ -f "$requirements" ] || die "no such file: $requirements"
key=$({ cat "$requirements"; "$python" --version; } | sha256_of - | cut -c1-12)
readonly venv="$cache_root/venv-$key"

if [ ! -f "$venv/ready" ]; then
  lock "venv-$key"
  if [ ! -f "$venv/ready" ]; then
    say "Installing the Python packages of ${requirements#"$root/"} ..."
    rm -rf "$venv"
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" >&2 ||
      die "pip could not install ${requirements#"$root/"}"
    touch "$venv/ready"
  fi
fi
printf '%s\n' "$venv"
