#!/usr/bin/env bash
# The official JavaScript clients that the tests talk to the server with (the TypeScript SDK and
# Claude Code), in the cache; prints the folder that holds node_modules.
#
#   clients.sh       the newest ones, tests/clients/package.json
#   clients.sh old   an older version of each, tests/clients/old/package.json
#
# The lock file beside each has version and hash of everything that they pull in, and no addresses:
# npm install --package-lock-only --omit-lockfile-registry-resolved writes it anew.
set -euo pipefail
. "$(dirname "$0")/../common.sh"

case "${1:-new}" in
  new) source="$root/tests/clients" ;;
  old) source="$root/tests/clients/old" ;;
  *) die "no such clients: $1 (new, old)" ;;
esac
key=$({ cat "$source/package.json" "$source/package-lock.json"; uname -sm; } | sha256_of - |
  cut -c1-12)
readonly clients="$cache_root/clients-$key"

if [ ! -f "$clients/ready" ]; then
  lock "clients-$key"
  if [ ! -f "$clients/ready" ]; then
    say "Installing the JavaScript clients ..."
    rm -rf "$clients" && mkdir -p "$clients"
    cp "$source/package.json" "$source/package-lock.json" "$clients/"
    log="$clients/install.log"
    (cd "$clients" && npm ci --no-audit --no-fund --loglevel=error) >"$log" 2>&1 </dev/null ||
      { tail -20 "$log" >&2; die "npm could not install $source/package.json"; }
    "$clients/node_modules/.bin/claude" --version >>"$log" 2>&1 ||
      { tail -20 "$log" >&2; die "Claude Code was installed but does not start"; }
    touch "$clients/ready"
  fi
fi
printf '%s\n' "$clients"
