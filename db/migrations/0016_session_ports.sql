-- Up Migration

-- Ports of a session's sandbox that are open to whoever holds the link. Only the hash of its token is kept.
CREATE TABLE session_ports (
  id text PRIMARY KEY,
  session_id text NOT NULL REFERENCES sessions (id),
  team_id text NOT NULL,
  port integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
  token_hash bytea NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);
CREATE INDEX session_ports_by_session ON session_ports (session_id, created_at DESC);
CREATE INDEX session_ports_by_expiry ON session_ports (expires_at);

-- Down Migration
DROP TABLE session_ports;
