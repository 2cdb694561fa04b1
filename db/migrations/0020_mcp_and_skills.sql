-- Up Migration

-- `platform`: tools of the product itself. `mcp`: tools of an agent's MCP servers.
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
ALTER TABLE effects ADD CONSTRAINT effects_kind_check
  CHECK (kind IN ('builtin', 'custom', 'invalid', 'harness', 'platform', 'mcp'));

-- Down Migration

DELETE FROM approvals WHERE effect_id IN (SELECT id FROM effects WHERE kind IN ('platform', 'mcp'));
DELETE FROM harness_calls WHERE effect_id IN (SELECT id FROM effects WHERE kind IN ('platform', 'mcp'));
DELETE FROM effects WHERE kind IN ('platform', 'mcp');
ALTER TABLE effects DROP CONSTRAINT effects_kind_check;
ALTER TABLE effects ADD CONSTRAINT effects_kind_check CHECK (kind IN ('builtin', 'custom', 'invalid', 'harness'));
