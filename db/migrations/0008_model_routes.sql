-- Up Migration

-- Model names of a team and who answers for them. Keys of providers are never here: deployments refer to variables
-- of the gateway's environment.
CREATE TABLE model_routes (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  -- A model name, or a pattern that ends with an asterisk.
  name text NOT NULL,
  -- As the API takes it, without the name.
  spec jsonb NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (team_id, name)
);

-- Which models a team may call.
CREATE TABLE model_policies (
  team_id text PRIMARY KEY,
  -- NULL: all it can reach.
  allowed_models jsonb,
  updated_by text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Every deployment that was asked, in order; NULL when the first one answered.
ALTER TABLE ledger ADD COLUMN attempts jsonb;

-- Down Migration

ALTER TABLE ledger DROP COLUMN attempts;
DROP TABLE model_policies;
DROP TABLE model_routes;
