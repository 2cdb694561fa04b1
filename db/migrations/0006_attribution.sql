-- Up Migration

-- What a session is for, beyond agent and user: dimensions of budgets, ledger and traces.
ALTER TABLE sessions
  ADD COLUMN labels jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN repo text,
  ADD COLUMN trigger text NOT NULL DEFAULT 'api',
  -- NULL: the session is its own root.
  ADD COLUMN root_session_id text REFERENCES sessions (id);

ALTER TABLE virtual_keys ADD COLUMN thread_id text;

-- The same dimensions, written with the row: what a session is called later must not change what it cost whom.
ALTER TABLE ledger
  ADD COLUMN root_session_id text,
  ADD COLUMN thread_id text,
  ADD COLUMN deployment_id text,
  ADD COLUMN harness text,
  ADD COLUMN runtime text,
  ADD COLUMN repo text,
  ADD COLUMN labels jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN trigger text,
  -- Where the call was routed: the configured deployment that answered, and the alias the caller asked for.
  ADD COLUMN model_deployment text,
  ADD COLUMN requested_model text;

-- Down Migration

ALTER TABLE ledger DROP COLUMN root_session_id, DROP COLUMN thread_id, DROP COLUMN deployment_id, DROP COLUMN harness,
  DROP COLUMN runtime, DROP COLUMN repo, DROP COLUMN labels, DROP COLUMN trigger, DROP COLUMN model_deployment,
  DROP COLUMN requested_model;
ALTER TABLE virtual_keys DROP COLUMN thread_id;
ALTER TABLE sessions DROP COLUMN labels, DROP COLUMN repo, DROP COLUMN trigger, DROP COLUMN root_session_id;
