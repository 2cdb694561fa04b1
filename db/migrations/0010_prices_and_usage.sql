-- Up Migration

-- Prices that a team, or the operator for everybody, has set: they go before the list prices that come with the product.
CREATE TABLE model_prices (
  id text PRIMARY KEY,
  -- NULL: for every team.
  team_id text,
  -- NULL: whoever serves the model.
  provider text,
  model text NOT NULL,
  -- Pico-dollars a token, by kind of token.
  rates jsonb NOT NULL,
  -- [{above_input_tokens, rates}], ascending.
  tiers jsonb NOT NULL DEFAULT '[]',
  source text NOT NULL CHECK (source IN ('manual', 'litellm')),
  set_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE NULLS NOT DISTINCT (team_id, provider, model)
);

ALTER TABLE ledger
  -- The key the call came with, of whichever kind.
  ADD COLUMN key_id text,
  -- Calls that a tool made on behalf of the session.
  ADD COLUMN tool text,
  -- Searches the provider made and bills by the piece.
  ADD COLUMN web_searches bigint NOT NULL DEFAULT 0,
  -- Ids of later entries that this row has added up, so that none is added twice.
  ADD COLUMN merged_ids jsonb NOT NULL DEFAULT '[]';

CREATE INDEX ledger_by_agent ON ledger (team_id, agent_id, created_at DESC) WHERE agent_id IS NOT NULL;
CREATE INDEX ledger_by_root_session ON ledger (root_session_id, created_at) WHERE root_session_id IS NOT NULL;
CREATE INDEX ledger_by_label ON ledger USING gin (labels jsonb_path_ops) WHERE labels <> '[]';
CREATE INDEX sessions_by_label ON sessions USING gin (labels jsonb_path_ops) WHERE labels <> '[]';

ALTER TABLE deployments
  ADD COLUMN labels jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN repo text;

-- Down Migration

ALTER TABLE deployments DROP COLUMN labels, DROP COLUMN repo;
DROP INDEX sessions_by_label, ledger_by_label, ledger_by_root_session, ledger_by_agent;
ALTER TABLE ledger DROP COLUMN key_id, DROP COLUMN tool, DROP COLUMN web_searches, DROP COLUMN merged_ids;
DROP TABLE model_prices;
