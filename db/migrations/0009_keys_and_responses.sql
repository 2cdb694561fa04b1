-- Up Migration

-- Long-lived keys get the limits that keys of sessions have.
ALTER TABLE api_keys
  -- `api`: this API; `gateway`: model calls.
  ADD COLUMN scopes jsonb NOT NULL DEFAULT '["api", "gateway"]',
  -- NULL: every model.
  ADD COLUMN allowed_models jsonb,
  -- NULL: no limit.
  ADD COLUMN max_parallel integer CHECK (max_parallel > 0),
  ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX api_keys_by_team ON api_keys (team_id, created_at DESC, id DESC);

-- A key of one turn ends with it.
ALTER TABLE virtual_keys ADD COLUMN turn integer;

-- Stored answers of the Responses protocol stay at the provider. A row says whose one is and who has it.
CREATE TABLE gateway_responses (
  team_id text NOT NULL,
  response_id text NOT NULL,
  -- Who asked, as the ledger row of a background answer will say.
  attribution jsonb NOT NULL,
  virtual_key_id text,
  provider text NOT NULL,
  deployment text,
  model text NOT NULL,
  requested_model text NOT NULL,
  -- `open`: made in the background, and what it cost is not in the ledger yet.
  state text NOT NULL CHECK (state IN ('open', 'settled')),
  polls integer NOT NULL DEFAULT 0,
  next_poll_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (team_id, response_id)
);
CREATE INDEX gateway_responses_open ON gateway_responses (next_poll_at) WHERE state = 'open';
CREATE INDEX gateway_responses_by_age ON gateway_responses (created_at);

-- Down Migration

DROP TABLE gateway_responses;
ALTER TABLE virtual_keys DROP COLUMN turn;
DROP INDEX api_keys_by_team;
ALTER TABLE api_keys DROP COLUMN scopes, DROP COLUMN allowed_models, DROP COLUMN max_parallel, DROP COLUMN updated_at;
