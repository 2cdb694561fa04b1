-- Up Migration

ALTER TABLE sandboxes
  -- Where the egress broker listens for it (a namespace on the worker's machine); null where it cannot.
  ADD COLUMN egress_point jsonb,
  -- The broker was, or was about to be, told of it: it must be told of its end too.
  ADD COLUMN egress_open boolean NOT NULL DEFAULT false,
  -- What it may reach, as its provider was told.
  ADD COLUMN network jsonb,
  -- What is enforced, observed or unavailable here, with reasons.
  ADD COLUMN controls jsonb,
  -- Since when its session does nothing; null while it is at work.
  ADD COLUMN idle_since timestamptz,
  -- The last saved state of its files: what a successor starts from.
  ADD COLUMN snapshot jsonb,
  ADD COLUMN snapshot_at timestamptz,
  -- What it was made from, settled before it was: {kind: session | environment, hash?, ref}; null: nothing.
  ADD COLUMN start jsonb,
  -- Steps of its preparation that are done, the end of all of them, or why they failed for good.
  ADD COLUMN steps jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN prepared_at timestamptz,
  ADD COLUMN failure jsonb,
  -- Sandboxes in a row of one session that died before they were prepared.
  ADD COLUMN attempt integer NOT NULL DEFAULT 1,
  -- What the agent has to be told about it once, with its next result.
  ADD COLUMN note text,
  ADD COLUMN told_at timestamptz;

UPDATE sandboxes SET prepared_at = created_at WHERE state <> 'creating';

CREATE INDEX sandboxes_idle ON sandboxes (idle_since) WHERE state <> 'destroyed' AND idle_since IS NOT NULL;
CREATE INDEX sandboxes_saved ON sandboxes (session_id) WHERE snapshot IS NOT NULL;
CREATE INDEX sandboxes_egress ON sandboxes (id) WHERE egress_open;

-- File systems with packages and set-up done, by a hash of everything that made them.
CREATE TABLE environment_snapshots (
  hash text NOT NULL,
  provider text NOT NULL,
  -- The installation whose provider holds it.
  owner text NOT NULL,
  team_id text NOT NULL,
  ref jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (hash, provider, owner)
);
CREATE INDEX environment_snapshots_by_use ON environment_snapshots (owner, last_used_at);

-- Until now no sandbox had a network, whatever its environment said. An upgrade must not open one that nobody sees open.
UPDATE environments
  SET config = jsonb_set(config, '{networking}',
    '{"type": "limited", "allowed_hosts": [], "allow_mcp_servers": false, "allow_package_managers": false}')
  WHERE config->>'type' = 'cloud' AND config->'networking'->>'type' = 'unrestricted';
UPDATE sessions
  SET environment = jsonb_set(environment, '{networking}',
    '{"type": "limited", "allowed_hosts": [], "allow_mcp_servers": false, "allow_package_managers": false}')
  WHERE status <> 'terminated' AND environment->>'type' = 'cloud' AND environment->'networking'->>'type' = 'unrestricted';

-- Down Migration

DROP TABLE environment_snapshots;
DROP INDEX sandboxes_egress, sandboxes_saved, sandboxes_idle;
ALTER TABLE sandboxes
  DROP COLUMN told_at, DROP COLUMN note, DROP COLUMN attempt, DROP COLUMN failure, DROP COLUMN prepared_at, DROP COLUMN steps,
  DROP COLUMN start,
  DROP COLUMN snapshot_at, DROP COLUMN snapshot, DROP COLUMN idle_since, DROP COLUMN controls, DROP COLUMN network,
  DROP COLUMN egress_open, DROP COLUMN egress_point;
