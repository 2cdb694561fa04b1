-- Up Migration

-- `platform`: tools of the product itself. `mcp`: tools of an agent's MCP servers.
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
ALTER TABLE effects ADD CONSTRAINT effects_kind_check
  CHECK (kind IN ('builtin', 'custom', 'invalid', 'harness', 'platform', 'mcp'));

-- What the MCP servers of a session's agent offered when they were last asked.
CREATE TABLE session_mcp_listings (
  session_id text NOT NULL REFERENCES sessions (id),
  server text NOT NULL,
  tools jsonb NOT NULL,
  -- Why it could not be asked the last time.
  error text,
  listed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (session_id, server)
);

-- Down Migration

DROP TABLE session_mcp_listings;
DELETE FROM approvals WHERE effect_id IN (SELECT id FROM effects WHERE kind IN ('platform', 'mcp'));
DELETE FROM harness_calls WHERE effect_id IN (SELECT id FROM effects WHERE kind IN ('platform', 'mcp'));
DELETE FROM effects WHERE kind IN ('platform', 'mcp');
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
ALTER TABLE effects ADD CONSTRAINT effects_kind_check CHECK (kind IN ('builtin', 'custom', 'invalid', 'harness'));
