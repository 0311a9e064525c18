#!/usr/bin/env bash
# Proves with two real servers (scripted engine) and a stand-in for `claude` that
# scripts/claude-local affects the process that it starts and nothing else.
#
#   scripts/test-isolation.sh [PENSIEVE]     The program; build/release/pensieve where not given.
#
# One line per check; ends with "N passed, N failed" and the exit status 1 where any failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here claude_local="$here/claude-local"
readonly pensieve="${1:-$here/../build/release/pensieve}"
# The caller's own Pensieve settings must not reach the servers of this test.
unset "${!PENSIEVE_@}"

if [ ! -x "$pensieve" ]; then
  printf 'error: %s is not built; run ./dev build first\n' "$pensieve" >&2
  exit 1
fi

work=$(mktemp -d)
servers=()
stop_servers() {
  local pid
  for pid in ${servers[@]+"${servers[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${servers[@]+"${servers[@]}"}; do wait "$pid" 2>/dev/null || true; done
  servers=()
}
trap 'stop_servers; rm -rf "$work"' EXIT

passed=0 failed=0
# check SENTENCE COMMAND...: passes where the command succeeds.
check() {
  local sentence=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$sentence"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$sentence"
  fi
}
equal() { [ "$1" = "$2" ] || { printf '      "%s" is not "%s"\n' "$1" "$2"; return 1; }; }
contains() {
  case $1 in *"$2"*) return 0 ;; esac
  printf '      "%s" does not contain "%s"\n' "$1" "$2"
  return 1
}
# In the environment dump $1 the variable $2 has the value $3.
variable_is() { grep -qxF "$2=$3" "$1" || { printf '      %s is not %s\n' "$2" "$3"; return 1; }; }
absent() { ! grep -q "^$2=" "$1" || { printf '      %s is set\n' "$2"; return 1; }; }
# Variables that the shell itself changes from command to command.
environment() { env | grep -Ev '^(_|SHLVL|OLDPWD)=' | LC_ALL=C sort; }
# Names, kinds, permissions and contents of everything under $1.
tree() {
  (cd "$1" && find . -exec ls -ld {} + | awk '{print $1, $NF}' | LC_ALL=C sort &&
    find . -type f -exec cksum {} + | LC_ALL=C sort)
}

# Waits until the log of the server NAME, the last one that was started, tells its `port`.
wait_for_port() {
  local name=$1 attempt log="$work/$1.log"
  for attempt in $(seq 1 300); do
    port=$(sed -n 's|.*listening on http://127\.0\.0\.1:\([0-9]*\).*|\1|p' "$log" | head -n 1)
    if [ -n "$port" ]; then return 0; fi
    if ! kill -0 "${servers[${#servers[@]} - 1]}" 2>/dev/null; then break; fi
    sleep 0.1
  done
  printf 'error: the server %s did not start (attempt %s):\n' "$name" "$attempt" >&2
  cat "$log" >&2
  exit 1
}

# start_server NAME [VARIABLE=VALUE...]: starts a server on a free port and sets `port`.
start_server() {
  local name=$1
  shift
  printf 'context_tokens 32768\n' >"$work/$name.script"
  # What the server keeps of its own (estimates, prefixes) is not what the wrapper may touch.
  env XDG_STATE_HOME="$work/state" XDG_CACHE_HOME="$work/cache" "$@" \
    "$pensieve" serve --engine scripted --model "$work/$name.script" --port 0 \
    >"$work/$name.log" 2>&1 </dev/null &
  servers+=($!)
  wait_for_port "$name"
}

# A home as a user of the real API has it; nothing in it may change.
mkdir -p "$work/home/.claude" "$work/bin" "$work/empty" "$work/cwd"
printf '{"env":{"ANTHROPIC_MODEL":"claude-opus-5-5"}}\n' >"$work/home/.claude/settings.json"
printf '{"oauthAccount":"user"}\n' >"$work/home/.claude.json"
printf 'export ANTHROPIC_API_KEY=real-key\n' >"$work/home/.bashrc"
cat >"$work/bin/claude" <<'CLAUDE'
#!/usr/bin/env bash
env >"$CLAUDE_STANDIN_OUT.env"
for argument in "$@"; do printf '<%s>\n' "$argument"; done >"$CLAUDE_STANDIN_OUT.args"
# Waits until the other instance is here as well, where the test asks for that.
if [ -n "${CLAUDE_STANDIN_PARTNER:-}" ]; then
  for _ in $(seq 1 200); do
    if [ -e "$CLAUDE_STANDIN_PARTNER.env" ]; then exit 0; fi
    sleep 0.05
  done
  exit 99
fi
exit "${CLAUDE_STANDIN_STATUS:-0}"
CLAUDE
chmod +x "$work/bin/claude"

# The terminal of a user who works with the real API.
export HOME="$work/home" PATH="$work/bin:$PATH"
unset XDG_CONFIG_HOME
export ANTHROPIC_API_KEY=real-key ANTHROPIC_AUTH_TOKEN=real-token
export ANTHROPIC_BASE_URL=https://api.example ANTHROPIC_MODEL=claude-opus-5-5
export CLAUDE_CODE_USE_BEDROCK=1
cd "$work/cwd"

start_server first
readonly first=$port
start_server second PENSIEVE_PARALLEL=2
readonly second=$port
environment_before=$(environment)
tree_before=$(tree "$HOME")

# Two instances at once, each with its own server.
run_instance() {
  PENSIEVE_PORT=$2 CLAUDE_STANDIN_OUT="$work/$1" CLAUDE_STANDIN_PARTNER="$work/$3" \
    "$claude_local" --print "for $1"
}
run_instance a "$first" b &
instance=$!
status=0 && run_instance b "$second" a || status=$?
other=0 && wait "$instance" || other=$?
check "two servers have ports of their own" [ "$first" != "$second" ]
check "two instances run at the same time" equal "$status $other" "0 0"
check "the first instance talks to the first server" \
  variable_is "$work/a.env" ANTHROPIC_BASE_URL "http://127.0.0.1:$first"
check "the second instance talks to the second server" \
  variable_is "$work/b.env" ANTHROPIC_BASE_URL "http://127.0.0.1:$second"
check "each instance has the model of its server" \
  equal "$(grep -h ^ANTHROPIC_MODEL= "$work/a.env" "$work/b.env" | tr '\n' ' ')" \
  "ANTHROPIC_MODEL=first ANTHROPIC_MODEL=second "
for name in OPUS SONNET HAIKU FABLE; do
  check "the alias $name is the local model" \
    variable_is "$work/a.env" "ANTHROPIC_DEFAULT_${name}_MODEL" first
done
check "the window is the server's real one" \
  variable_is "$work/a.env" CLAUDE_CODE_MAX_CONTEXT_TOKENS 32768
check "the longest answer is a quarter of the window" \
  variable_is "$work/a.env" CLAUDE_CODE_MAX_OUTPUT_TOKENS 8192
check "no more sub-agents than the server runs at once" \
  variable_is "$work/b.env" CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS 2
check "the local token is used" variable_is "$work/a.env" ANTHROPIC_API_KEY pensieve-local-token
check "the timeout suits a slow machine" variable_is "$work/a.env" API_TIMEOUT_MS 3000000
check "the attribution line is off" variable_is "$work/a.env" CLAUDE_CODE_ATTRIBUTION_HEADER 0
check "the real token is not handed to the local server" absent "$work/a.env" ANTHROPIC_AUTH_TOKEN
check "other providers are off" absent "$work/a.env" CLAUDE_CODE_USE_BEDROCK

# Arguments and exit status.
status=0
PENSIEVE_PORT=$first CLAUDE_STANDIN_OUT="$work/c" CLAUDE_STANDIN_STATUS=42 \
  "$claude_local" --print "two words" "a \"quote\" and 'one'" '' "\$HOME *" || status=$?
check "the exit status passes through" equal "$status" 42
check "arguments pass through with spaces, quotes and empty ones" \
  equal "$(cat "$work/c.args")" \
  "$(printf '<%s>\n' --print "two words" "a \"quote\" and 'one'" '' "\$HOME *")"
status=0
PENSIEVE_PORT=$first CLAUDE_STANDIN_OUT="$work/d" "$claude_local" || status=$?
check "it runs without arguments" equal "$status $(cat "$work/d.args")" "0 "

# What was not to change.
check "the caller's environment is unchanged" equal "$(environment)" "$environment_before"
check "the user's files are unchanged" equal "$(tree "$HOME")" "$tree_before"
check "the working directory is unchanged" equal "$(ls -A "$work/cwd")" ""
CLAUDE_STANDIN_OUT="$work/e" bash -c 'claude --print x'
check "a second terminal keeps its own address" \
  variable_is "$work/e.env" ANTHROPIC_BASE_URL https://api.example
check "a second terminal keeps its own key" variable_is "$work/e.env" ANTHROPIC_API_KEY real-key
check "a second terminal keeps its own model" \
  variable_is "$work/e.env" ANTHROPIC_MODEL claude-opus-5-5
check "a second terminal keeps its own provider" variable_is "$work/e.env" CLAUDE_CODE_USE_BEDROCK 1

# What it says when something is missing.
refused() { message=$(PENSIEVE_PORT=$1 CLAUDE_STANDIN_OUT="$work/f" "$claude_local" x 2>&1); }
for tool in bash env; do ln -s "$(command -v "$tool")" "$work/empty/$tool"; done
ln -s "$(command -v curl || command -v python3)" "$work/empty/"
status=0 && PATH="$work/empty" refused "$first" || status=$?
check "without claude it ends with 127" equal "$status" 127
check "without claude it says how to install it" contains "$message" "npm install -g"

# A stand-in: a real server that starts short of memory refuses its model and ends, and taking the
# memory from one that runs would take it from everything else on this machine too.
python3 - >"$work/full.log" <<'PYTHON' &
import http.server

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"unhealthy","service":"pensieve-anthropic-proxy","memory":'
                         b'{"status":"Critical","available_gb":"0.75","accepting_requests":false}}')

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Health)
print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
PYTHON
servers+=($!)
wait_for_port full
status=0 && refused "$port" || status=$?
check "a server short of memory ends it with 6" equal "$status" 6
check "a server short of memory is named with level and GB" \
  contains "$message" "memory is Critical, 0.75 GB available"
check "claude was not started then" [ ! -e "$work/f.env" ]

stop_servers
status=0 && refused "$first" || status=$?
check "without a server it ends with 5" equal "$status" 5
check "without a server it says how to start one" contains "$message" "pensieve serve"
check "the user's files are unchanged after all" equal "$(tree "$HOME")" "$tree_before"

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
