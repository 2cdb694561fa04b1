-- Up Migration

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  name text NOT NULL,
  -- SHA-256 of a random 256-bit key: enough, since there is nothing to guess.
  key_hash bytea NOT NULL UNIQUE,
  prefix text NOT NULL,
  user_id text NOT NULL,
  team_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);

CREATE TABLE agents (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  latest_version integer NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz
);
CREATE INDEX agents_by_team ON agents (team_id, created_at DESC, id DESC);

-- Immutable: an edit inserts the next version.
CREATE TABLE agent_versions (
  agent_id text NOT NULL REFERENCES agents (id),
  version integer NOT NULL CHECK (version > 0),
  definition jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (agent_id, version)
);

CREATE TABLE environments (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  name text NOT NULL,
  description text,
  config jsonb NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz
);
CREATE INDEX environments_by_team ON environments (team_id, created_at DESC, id DESC);

CREATE TABLE deployments (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  name text NOT NULL,
  description text,
  agent_id text NOT NULL REFERENCES agents (id),
  -- NULL follows the newest version.
  agent_version integer,
  environment_id text NOT NULL REFERENCES environments (id),
  initial_events jsonb NOT NULL,
  schedule jsonb,
  status text NOT NULL CHECK (status IN ('active', 'paused')),
  paused_reason jsonb,
  budget jsonb,
  limits jsonb NOT NULL DEFAULT '{}',
  resources jsonb NOT NULL DEFAULT '[]',
  vault_ids jsonb NOT NULL DEFAULT '[]',
  metadata jsonb NOT NULL DEFAULT '{}',
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz
);
CREATE INDEX deployments_by_team ON deployments (team_id, created_at DESC, id DESC);

CREATE TABLE sessions (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  created_by text NOT NULL,
  agent_id text NOT NULL REFERENCES agents (id),
  agent_version integer NOT NULL,
  -- The resolved definition (overrides applied): a session never sees a later edit (invariant 7).
  agent jsonb NOT NULL,
  environment_id text NOT NULL REFERENCES environments (id),
  environment jsonb NOT NULL,
  title text,
  metadata jsonb NOT NULL DEFAULT '{}',
  budget jsonb,
  limits jsonb NOT NULL DEFAULT '{}',
  resources jsonb NOT NULL DEFAULT '[]',
  vault_ids jsonb NOT NULL DEFAULT '[]',
  deployment_id text REFERENCES deployments (id),
  status text NOT NULL DEFAULT 'idle' CHECK (status IN ('idle', 'running', 'rescheduling', 'terminated')),
  stop_reason jsonb,
  -- Allocator of events.seq: bumped by the row lock of the transaction that inserts, so seq has no gap.
  last_seq bigint NOT NULL DEFAULT 0,
  current_turn integer NOT NULL DEFAULT 0,
  -- Set by accepted terminate/archive/delete before the workflow knows: no new input is accepted after it.
  closing_at timestamptz,
  -- NULL until the workflow is known to exist; the outbox sweep starts what a crash left without one.
  workflow_started_at timestamptz,
  active_ms bigint NOT NULL DEFAULT 0,
  running_since timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  deleted_at timestamptz,
  terminated_at timestamptz,
  FOREIGN KEY (agent_id, agent_version) REFERENCES agent_versions (agent_id, version)
);
CREATE INDEX sessions_by_team ON sessions (team_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX sessions_not_started ON sessions (created_at) WHERE workflow_started_at IS NULL;
CREATE INDEX sessions_by_agent ON sessions (agent_id, created_at DESC);
CREATE INDEX sessions_by_deployment ON sessions (deployment_id, created_at DESC) WHERE deployment_id IS NOT NULL;

CREATE TABLE deployment_runs (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  deployment_id text NOT NULL REFERENCES deployments (id),
  agent_id text NOT NULL,
  agent_version integer NOT NULL,
  session_id text REFERENCES sessions (id),
  trigger_context jsonb NOT NULL,
  -- One firing = one workflow: a retried activity finds its row again.
  workflow_id text NOT NULL UNIQUE,
  status text NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
  error jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE INDEX deployment_runs_by_deployment ON deployment_runs (deployment_id, created_at DESC, id DESC);
CREATE INDEX deployment_runs_by_team ON deployment_runs (team_id, created_at DESC, id DESC);

-- The append-only log. dedupe_key makes an append by a retried activity a no-op.
CREATE TABLE events (
  session_id text NOT NULL REFERENCES sessions (id),
  seq bigint NOT NULL,
  id text NOT NULL UNIQUE,
  type text NOT NULL,
  payload jsonb NOT NULL,
  dedupe_key text,
  created_at timestamptz NOT NULL DEFAULT now(),
  processed_at timestamptz,
  PRIMARY KEY (session_id, seq),
  UNIQUE (session_id, dedupe_key)
);
CREATE INDEX events_by_type ON events (session_id, type, seq);

-- Append-only by force: only processed_at may be set, once.
CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.processed_at IS NULL
     AND (NEW.session_id, NEW.seq, NEW.id, NEW.type, NEW.payload, NEW.created_at)
         IS NOT DISTINCT FROM (OLD.session_id, OLD.seq, OLD.id, OLD.type, OLD.payload, OLD.created_at) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'events are append-only';
END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION events_append_only();

-- Accepted inputs: outbox to the workflow and record of their one terminal state (invariants 1 and 2).
CREATE TABLE inputs (
  event_id text PRIMARY KEY REFERENCES events (id),
  session_id text NOT NULL REFERENCES sessions (id),
  kind text NOT NULL CHECK (kind IN ('message', 'tool_confirmation', 'custom_tool_result', 'interrupt', 'stop', 'terminate')),
  -- What the workflow is told: ids and decisions only.
  message jsonb NOT NULL,
  state text NOT NULL DEFAULT 'accepted' CHECK (state IN ('accepted', 'delivered', 'in_turn', 'completed', 'failed', 'cancelled')),
  reason text,
  turn integer,
  created_at timestamptz NOT NULL DEFAULT now(),
  delivered_at timestamptz,
  ended_at timestamptz,
  CHECK ((state IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL AND reason IS NOT NULL))
);
CREATE INDEX inputs_undelivered ON inputs (created_at) WHERE state = 'accepted';
CREATE INDEX inputs_open ON inputs (session_id) WHERE state IN ('accepted', 'delivered', 'in_turn');

CREATE TABLE turns (
  session_id text NOT NULL REFERENCES sessions (id),
  turn integer NOT NULL,
  state text NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'interrupted')),
  model text NOT NULL,
  stop_reason jsonb,
  error jsonb,
  started_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  PRIMARY KEY (session_id, turn)
);

-- One model call of the native loop. If the row exists, the model is not called again.
CREATE TABLE steps (
  session_id text NOT NULL,
  turn integer NOT NULL,
  step integer NOT NULL,
  model text NOT NULL,
  stop_reason text NOT NULL,
  -- Assistant content blocks as the provider gave them (text, thinking, tool_use).
  content jsonb NOT NULL,
  usage jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, turn, step),
  FOREIGN KEY (session_id, turn) REFERENCES turns (session_id, turn)
);

-- The effect ledger: the row exists before the effect starts.
CREATE TABLE effects (
  -- Also the id of the agent.tool_use / agent.custom_tool_use event.
  id text PRIMARY KEY,
  session_id text NOT NULL,
  turn integer NOT NULL,
  step integer NOT NULL,
  position integer NOT NULL,
  -- The provider's id of the tool call, echoed in the tool result.
  tool_use_id text NOT NULL,
  tool text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('builtin', 'custom', 'invalid')),
  idempotent boolean NOT NULL,
  input jsonb NOT NULL,
  digest text NOT NULL,
  state text NOT NULL CHECK (state IN ('proposed', 'waiting', 'allowed', 'denied', 'started', 'succeeded', 'failed', 'unknown')),
  verdict text NOT NULL CHECK (verdict IN ('allow', 'ask', 'deny')),
  verdict_reason text NOT NULL,
  -- Attempts at starting: 1 for the first, +1 for each human "retry" of a lost effect.
  generation integer NOT NULL DEFAULT 1,
  sandbox_id text,
  -- Where a large result's whole text lies in the workspace.
  result jsonb,
  is_error boolean,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at timestamptz,
  UNIQUE (session_id, turn, step, position),
  FOREIGN KEY (session_id, turn, step) REFERENCES steps (session_id, turn, step)
);
CREATE INDEX effects_open ON effects (session_id) WHERE state NOT IN ('denied', 'succeeded', 'failed');

CREATE TABLE approvals (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  session_id text NOT NULL REFERENCES sessions (id),
  effect_id text NOT NULL REFERENCES effects (id),
  kind text NOT NULL CHECK (kind IN ('effect', 'lost_effect')),
  generation integer NOT NULL,
  -- SHA-256 of the canonical JSON of `shown`.
  digest text NOT NULL,
  shown jsonb NOT NULL,
  policy_version text NOT NULL,
  state text NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'cancelled', 'consumed')),
  decision text CHECK (decision IN ('allow', 'deny', 'done', 'retry', 'skip')),
  -- Edited arguments (allow only) and what to tell the model (deny, done, skip).
  edited_input jsonb,
  message text,
  decided_by text,
  decided_at timestamptz,
  expires_at timestamptz NOT NULL,
  consumed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (effect_id, kind, generation)
);
CREATE INDEX approvals_pending ON approvals (team_id, created_at DESC, id DESC) WHERE state = 'pending';
CREATE INDEX approvals_by_team ON approvals (team_id, created_at DESC, id DESC);
CREATE INDEX approvals_by_session ON approvals (session_id, created_at);

CREATE TABLE sandboxes (
  id text PRIMARY KEY,
  session_id text NOT NULL REFERENCES sessions (id),
  generation integer NOT NULL,
  provider text NOT NULL,
  ref jsonb,
  state text NOT NULL CHECK (state IN ('creating', 'running', 'paused', 'lost', 'destroyed')),
  lease_expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  destroyed_at timestamptz,
  UNIQUE (session_id, generation)
);
CREATE INDEX sandboxes_leased ON sandboxes (lease_expires_at) WHERE state <> 'destroyed';

CREATE TABLE virtual_keys (
  id text PRIMARY KEY,
  key_hash bytea NOT NULL UNIQUE,
  team_id text NOT NULL,
  user_id text NOT NULL,
  session_id text REFERENCES sessions (id),
  agent_id text,
  agent_version integer,
  allowed_models jsonb,
  max_parallel integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX virtual_keys_by_session ON virtual_keys (session_id) WHERE revoked_at IS NULL;

-- Recorded answers of model calls that carry an idempotency key: a retry replays, it does not pay.
CREATE TABLE model_calls (
  idempotency_key text PRIMARY KEY,
  session_id text,
  request_digest text NOT NULL,
  state text NOT NULL CHECK (state IN ('in_flight', 'complete')),
  -- The gateway process that makes the call, and until when it may be believed to live.
  owner text NOT NULL,
  lease_expires_at timestamptz NOT NULL,
  attempts integer NOT NULL DEFAULT 1,
  status integer,
  headers jsonb,
  body bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz
);
CREATE INDEX model_calls_by_age ON model_calls (created_at);

-- One row per model call, money in micro-dollars.
CREATE TABLE ledger (
  id text PRIMARY KEY,
  -- Unique place of a session's call: session/turn/step, or the row's own id for calls outside a session.
  call_key text NOT NULL UNIQUE,
  team_id text NOT NULL,
  user_id text NOT NULL,
  session_id text REFERENCES sessions (id),
  turn integer,
  step integer,
  agent_id text,
  agent_version integer,
  virtual_key_id text,
  protocol text NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  input_tokens bigint NOT NULL,
  cache_read_tokens bigint NOT NULL,
  cache_write_5m_tokens bigint NOT NULL,
  cache_write_1h_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  reasoning_tokens bigint NOT NULL,
  -- NULL: the model has no price; such a model is refused where a budget applies.
  cost_micros bigint CHECK (cost_micros >= 0),
  usage_basis text NOT NULL CHECK (usage_basis IN ('reported', 'estimated', 'none')),
  ttft_ms integer,
  latency_ms integer NOT NULL,
  http_status integer,
  error text,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ledger_by_session ON ledger (session_id, turn, step) WHERE session_id IS NOT NULL;
CREATE INDEX ledger_by_team ON ledger (team_id, created_at DESC);

-- The scripted model's own count of what it was asked for and billed (dev and tests only).
CREATE TABLE scripted_calls (
  session_id text NOT NULL,
  script_digest text NOT NULL,
  step integer NOT NULL,
  asked integer NOT NULL DEFAULT 0,
  billed integer NOT NULL DEFAULT 0,
  PRIMARY KEY (session_id, script_digest, step)
);

CREATE TABLE idempotency_keys (
  principal text NOT NULL,
  key text NOT NULL,
  route text NOT NULL,
  body_digest text NOT NULL,
  status integer,
  response jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Every decision, written in the transaction of the state change (invariant 11).
CREATE TABLE audit (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  team_id text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  resource text NOT NULL,
  session_id text,
  decision text,
  digest text,
  details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_by_session ON audit (session_id, seq) WHERE session_id IS NOT NULL;

-- Down Migration

DROP TABLE audit, idempotency_keys, scripted_calls, ledger, model_calls, virtual_keys, sandboxes, approvals, effects,
  steps, turns, inputs, events, deployment_runs, sessions, deployments, environments, agent_versions, agents, api_keys;
DROP FUNCTION events_append_only();
