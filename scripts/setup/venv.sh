#!/usr/bin/env bash
# The Python environment of the tests and benchmarks, in the cache; prints its folder. The key is
# the pinned requirements and the interpreter, so a change of either makes a new one.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

readonly requirements="$root/tests/requirements.txt"
key=$({ cat "$requirements"; "$python" --version; } | sha256_of - | cut -c1-12)
readonly venv="$cache_root/venv-$key"

if [ ! -f "$venv/ready" ]; then
  lock "venv-$key"
  if [ ! -f "$venv/ready" ]; then
    say "Installing the tests' Python packages ..."
    rm -rf "$venv"
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" >&2 ||
      die "pip could not install tests/requirements.txt"
    touch "$venv/ready"
  fi
fi
printf '%s\n' "$venv"
