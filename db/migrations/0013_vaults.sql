-- Up Migration

CREATE TABLE vaults (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  display_name text NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  -- The row of a deleted vault stays as a name for the audit; nothing secret is left behind it.
  deleted_at timestamptz
);
CREATE INDEX vaults_by_team ON vaults (team_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE credentials (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  vault_id text NOT NULL REFERENCES vaults (id),
  kind text NOT NULL CHECK (kind IN ('environment_variable', 'static_bearer', 'mcp_oauth', 'ssh', 'git')),
  display_name text,
  metadata jsonb NOT NULL DEFAULT '{}',
  -- What it is found by, once per vault: the variable's name, the MCP server's URL, or the host.
  name text NOT NULL,
  -- Everything that is not secret: hosts, locations, endpoints.
  spec jsonb NOT NULL,
  -- What placeholders are to look like, learned from the value when it was written; never a part of the value's secret.
  shape jsonb NOT NULL DEFAULT '{}',
  current_version integer NOT NULL CHECK (current_version > 0),
  -- `needs_reauth`: its refresh token is used up or refused, and a person has to give a new one.
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'needs_reauth')),
  state_reason text,
  -- Set before a refresh token is sent and cleared with the answer: found set, somebody died between the two.
  refresh_started_at timestamptz,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  deleted_at timestamptz
);
CREATE UNIQUE INDEX credentials_by_name ON credentials (vault_id, kind, name)
  WHERE deleted_at IS NULL AND archived_at IS NULL;
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

-- Only the newest version has its value; that of an older one is destroyed when it is replaced.
CREATE TABLE credential_versions (
  credential_id text NOT NULL REFERENCES credentials (id),
  version integer NOT NULL CHECK (version > 0),
  -- The master key that wraps the key of this row; NULL with a destroyed value.
  key_id text,
  wrapped_key bytea,
  sealed bytea,
  -- Where the value lies instead, `vault://<backend>/<path>#<field>`; other parts of it may still be sealed here.
  secret_ref text,
  -- Of an access token.
  expires_at timestamptz,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (credential_id, version),
  CHECK ((sealed IS NULL) = (wrapped_key IS NULL) AND (sealed IS NULL) = (key_id IS NULL))
);
CREATE INDEX credential_versions_by_key ON credential_versions (key_id, credential_id, version)
  WHERE key_id IS NOT NULL;

-- Which vaults a session gets besides those it names.
CREATE TABLE vault_bindings (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  vault_id text NOT NULL REFERENCES vaults (id),
  target_type text NOT NULL CHECK (target_type IN ('agent', 'deployment', 'team', 'user')),
  target_id text NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (vault_id, target_type, target_id)
);
CREATE INDEX vault_bindings_by_target ON vault_bindings (team_id, target_type, target_id);

-- What a session may use, and the stand-in its sandbox sees. The rules are copies that follow every edit of the credential.
CREATE TABLE session_credentials (
  id text PRIMARY KEY,
  session_id text NOT NULL REFERENCES sessions (id),
  credential_id text NOT NULL REFERENCES credentials (id),
  vault_id text NOT NULL REFERENCES vaults (id),
  -- At minting; a use takes the newest.
  version integer NOT NULL,
  name text NOT NULL,
  env text,
  kind text NOT NULL CHECK (kind IN ('environment_variable', 'static_bearer', 'mcp_oauth', 'ssh', 'git')),
  -- Random and no secret, but of this session alone.
  placeholder text NOT NULL UNIQUE,
  hosts jsonb NOT NULL,
  unrestricted boolean NOT NULL DEFAULT false,
  locations jsonb NOT NULL,
  header_name text,
  template text,
  -- The user name that goes with a password, for Basic.
  username text,
  methods jsonb,
  paths jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz,
  UNIQUE (session_id, credential_id),
  CHECK (unrestricted OR jsonb_array_length(hosts) > 0)
);
CREATE INDEX session_credentials_by_credential ON session_credentials (credential_id) WHERE revoked_at IS NULL;

-- Each change of the master key and how far it came; the work itself is found by credential_versions.key_id.
CREATE TABLE vault_key_rotations (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  to_key_id text NOT NULL,
  rewrapped integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  started_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE UNIQUE INDEX vault_key_rotations_open ON vault_key_rotations (to_key_id) WHERE ended_at IS NULL;

-- Down Migration

DROP TABLE vault_key_rotations, session_credentials, vault_bindings, credential_versions, credentials, vaults;
