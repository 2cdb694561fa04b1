-- Up Migration

-- Sandboxes that programs made through the E2B-compatible server. They belong to a key's team, not to a session.
CREATE TABLE e2b_sandboxes (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  created_by text NOT NULL,
  template text NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  -- The provider's reference; null until it has answered.
  ref jsonb,
  state text NOT NULL CHECK (state IN ('running', 'paused', 'ended')),
  -- False while the provider has yet to follow: whoever finds it so does the work again, which is harmless.
  settled boolean NOT NULL DEFAULT false,
  keep_memory boolean NOT NULL DEFAULT true,
  on_timeout text NOT NULL CHECK (on_timeout IN ('kill', 'pause')),
  auto_resume boolean NOT NULL DEFAULT false,
  -- What its program asked for; what is enforced is stricter or the same.
  network jsonb NOT NULL DEFAULT '{}',
  cpus integer NOT NULL,
  memory_bytes bigint NOT NULL,
  disk_bytes bigint NOT NULL,
  last_pid integer NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz NOT NULL,
  CHECK (settled = false OR ref IS NOT NULL OR state = 'ended')
);
CREATE INDEX e2b_sandboxes_of_team ON e2b_sandboxes (team_id, created_at, id) WHERE state <> 'ended';
CREATE INDEX e2b_sandboxes_by_expiry ON e2b_sandboxes (expires_at) WHERE state <> 'ended';
CREATE INDEX e2b_sandboxes_unsettled ON e2b_sandboxes (updated_at) WHERE NOT settled;
CREATE INDEX e2b_sandboxes_by_metadata ON e2b_sandboxes USING gin (metadata jsonb_path_ops) WHERE state <> 'ended';

-- Commands of such a sandbox: the pid is ours, the journal of the provider knows the rest. Environments are not kept.
CREATE TABLE e2b_processes (
  sandbox_id text NOT NULL REFERENCES e2b_sandboxes (id) ON DELETE CASCADE,
  pid integer NOT NULL,
  tag text,
  cmd text NOT NULL,
  args jsonb NOT NULL,
  cwd text,
  kind text NOT NULL CHECK (kind IN ('command', 'pty')),
  stdin boolean NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (sandbox_id, pid)
);
CREATE INDEX e2b_processes_open ON e2b_processes (sandbox_id, pid) WHERE ended_at IS NULL;

CREATE TABLE e2b_snapshots (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  sandbox_id text NOT NULL,
  name text,
  ref jsonb,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX e2b_snapshots_of_team ON e2b_snapshots (team_id, created_at, id);

-- Down Migration

DROP TABLE e2b_snapshots, e2b_processes, e2b_sandboxes;
