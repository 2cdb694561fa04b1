-- Up Migration

-- What a session's harness needs to go on in another process. The token is plain JSON without secrets.
CREATE TABLE harness_sessions (
  session_id text PRIMARY KEY REFERENCES sessions (id),
  harness text NOT NULL,
  placement text NOT NULL CHECK (placement IN ('inline', 'sandbox')),
  harness_session_id text,
  token jsonb,
  -- The harness's own state for another machine, as of the end of `exported_turn`.
  state bytea CHECK (octet_length(state) <= 16777216),
  exported_turn integer,
  -- The turn and attempt that run, or ran last.
  turn integer NOT NULL DEFAULT 0,
  attempt integer NOT NULL DEFAULT 0,
  -- Counts the lives of a harness within a turn: calls of an earlier life are those it may make again.
  epoch integer NOT NULL DEFAULT 0,
  -- What the workflow asks of the running attempt.
  wish text CHECK (wish IN ('park', 'detach')),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Tool calls of harnesses as they were asked. What becomes of each is its effect's.
CREATE TABLE harness_calls (
  id text PRIMARY KEY,
  session_id text NOT NULL,
  turn integer NOT NULL,
  epoch integer NOT NULL,
  -- The harness's own id of the call, where it tells one.
  harness_call_id text,
  tool text NOT NULL,
  input jsonb NOT NULL,
  digest text NOT NULL,
  executor text NOT NULL CHECK (executor IN ('platform', 'harness')),
  -- NULL until the workflow has planned it.
  effect_id text UNIQUE REFERENCES effects (id),
  -- The harness has the result in its history.
  delivered_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  FOREIGN KEY (session_id, turn) REFERENCES turns (session_id, turn)
);
CREATE INDEX harness_calls_by_turn ON harness_calls (session_id, turn, created_at);

-- What a harness shows to our own endpoints: never more than one session, never longer than it.
CREATE TABLE session_tokens (
  id text PRIMARY KEY,
  token_hash bytea NOT NULL UNIQUE,
  session_id text NOT NULL REFERENCES sessions (id),
  purpose text NOT NULL CHECK (purpose IN ('mcp', 'hook')),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX session_tokens_by_session ON session_tokens (session_id) WHERE revoked_at IS NULL;
CREATE INDEX session_tokens_by_expiry ON session_tokens (expires_at);

-- Calls under such a key belong to the turn of its session that runs; without one they are refused.
ALTER TABLE virtual_keys ADD COLUMN follows_turn boolean NOT NULL DEFAULT false;

-- A harness tells no steps: its calls are numbered within the turn.
ALTER TABLE effects DROP CONSTRAINT effects_session_id_turn_step_fkey;
ALTER TABLE effects ADD FOREIGN KEY (session_id, turn) REFERENCES turns (session_id, turn);
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
-- `harness`: a tool of the harness's own, which it runs itself.
ALTER TABLE effects ADD CONSTRAINT effects_kind_check CHECK (kind IN ('builtin', 'custom', 'invalid', 'harness'));

-- Down Migration

DELETE FROM approvals WHERE effect_id IN (SELECT id FROM effects WHERE kind = 'harness');
DROP TABLE session_tokens, harness_calls, harness_sessions;
DELETE FROM effects e WHERE kind = 'harness' OR NOT EXISTS (
  SELECT 1 FROM steps s WHERE s.session_id = e.session_id AND s.turn = e.turn AND s.step = e.step);
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
ALTER TABLE effects ADD CONSTRAINT effects_kind_check CHECK (kind IN ('builtin', 'custom', 'invalid'));
ALTER TABLE effects DROP CONSTRAINT effects_session_id_turn_fkey;
ALTER TABLE effects ADD FOREIGN KEY (session_id, turn, step) REFERENCES steps (session_id, turn, step);
ALTER TABLE virtual_keys DROP COLUMN follows_turn;
