#!/usr/bin/env bash
# The real terminal client against a stack that runs: a streamed answer, a permission answered by a key, tokens and cost.
# By hand: test/matrix/opencode-tui.sh <home of the stack> (needs tmux, and `longhaul harness install opencode`).
# Not part of the suite: a terminal that is drawn on a busy machine is slow and proves nothing that opencode.test.ts does not.
set -euo pipefail
home="${1:?the home of a running stack}"
read -r url key < <(node -e 'const d = JSON.parse(require("fs").readFileSync(process.argv[1] + "/dev.json")); console.log(d.apiUrl, d.apiKey)' "$home")
cache="${LONGHAUL_HARNESS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/longhaul/harness}"
opencode="$(ls -d "$cache"/opencode-ai@*/node_modules/opencode-linux-x64/bin/opencode | tail -1)"
scratch="$(mktemp -d)"
session="opencode-tui-$$"
trap 'tmux kill-session -t "$session" 2>/dev/null; rm -rf "$scratch"' EXIT

post() { curl -sSf -H "authorization: Bearer $key" -H 'content-type: application/json' "$url$1" -d "$2" >/dev/null; }
post /v1/agents '{"name":"Asks first","model":"scripted","tools":[{"type":"agent_toolset_20260401","default_config":{"enabled":true,"permission_policy":{"type":"always_ask"}}}]}'
post /v1/environments '{"name":"Box"}'

cat >"$scratch/prompt" <<'PROMPT'
Do it.
```script
[{"text":"I look first.","chunks":4,"chunkMs":100,"tools":[{"name":"bash","input":{"command":"echo made-it"}}]},{"text":"The command said {{lastToolResult}}"}]
```
PROMPT

# The terminal must not find settings of whoever runs this.
tmux new-session -d -s "$session" -x 120 -y 40 \
  "env HOME='$scratch' OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 OPENCODE_SERVER_PASSWORD='$key' '$opencode' attach '$url/opencode' 2>'$scratch/err'; cat '$scratch/err'; sleep 60"

shows() {
  for _ in $(seq 240); do
    tmux capture-pane -p -t "$session" | grep -qF "$1" && { echo "shown: $1"; return; }
    sleep 0.5
  done
  tmux capture-pane -p -t "$session"
  echo "not shown: $1" >&2
  exit 1
}

shows 'Ask anything'
tmux load-buffer -b "$session" "$scratch/prompt"
tmux paste-buffer -p -d -b "$session" -t "$session"
shows '[Pasted'
tmux send-keys -t "$session" Enter
shows 'I look first.'
shows 'Permission required'
tmux capture-pane -p -t "$session"
tmux send-keys -t "$session" Enter
shows 'The command said made-it'
shows ' · $'
tmux capture-pane -p -t "$session"
