#!/usr/bin/env bash
# Runs the end-to-end tests with what they need set up: scripts/pytest.sh ARGUMENTS-OF-PYTEST
#
# They get a network of their own with nothing but loopback: no client can reach, or be helped by,
# anything but the server under test. Without root a user namespace gives the same.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

scripts/build.sh release pensieve pensieve-worker
scripts/setup/models.sh >/dev/null
scripts/setup/models.sh gemma >/dev/null
venv=$(scripts/setup/venv.sh)
PENSIEVE_TEST_CLIENTS=$(scripts/setup/clients.sh)
PENSIEVE_TEST_OLD_CLIENTS=$(scripts/setup/clients.sh old)
PENSIEVE_TEST_OLD_VENV=$(scripts/setup/venv.sh tests/clients/old/requirements.txt)
PENSIEVE_TEST_SCHEMATHESIS=$(scripts/setup/venv.sh tests/conformance/schemathesis.txt)
PENSIEVE_TEST_TEMPLATES="$(scripts/setup/llama.sh)/source/models/templates"
export PENSIEVE_TEST_CLIENTS PENSIEVE_TEST_OLD_CLIENTS PENSIEVE_TEST_OLD_VENV \
  PENSIEVE_TEST_SCHEMATHESIS PENSIEVE_TEST_TEMPLATES

apart=(unshare --net)
[ "$(id -u)" = 0 ] || apart=(unshare --net --map-root-user)
exec "${apart[@]}" bash -c 'ip link set lo up && exec "$@"' - \
  "$venv/bin/python" -m pytest -c tests/pytest.ini "$@"
