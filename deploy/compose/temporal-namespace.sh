#!/bin/sh
# Makes the namespace and its search attributes; does nothing when they are there already.
set -eu

attempt=0
until temporal operator cluster health --address "$TEMPORAL_ADDRESS"; do
  attempt=$((attempt + 1))
  if [ "$attempt" -ge 60 ]; then
    echo "Temporal at $TEMPORAL_ADDRESS did not become healthy" >&2
    exit 1
  fi
  sleep 2
done

if ! temporal operator namespace describe --address "$TEMPORAL_ADDRESS" --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
  temporal operator namespace create --address "$TEMPORAL_ADDRESS" --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
fi

# One name a call: of several, the command adds only the first.
add() {
  type="$1"
  shift
  for name in "$@"; do
    temporal operator search-attribute create --address "$TEMPORAL_ADDRESS" --namespace "$TEMPORAL_NAMESPACE" \
      --name "$name" --type "$type" || return 1
  done
}

# A new namespace reaches the frontend's cache only after some seconds.
attempt=0
until add Keyword AgentId TeamId UserId Harness SessionStatus DeploymentId Repo &&
  add Int AgentVersion CostMicros && add KeywordList Labels && add Bool NeedsApproval; do
  attempt=$((attempt + 1))
  if [ "$attempt" -ge 15 ]; then
    echo "The search attributes could not be made in $TEMPORAL_NAMESPACE" >&2
    exit 1
  fi
  sleep 2
done
