-- Up Migration

-- What sandboxes asked of the network, one row a request. seq has no gap within a sandbox: a row that was taken away shows.
-- No foreign keys: a key to sessions would make every request wait for the lock of its session's row.
CREATE TABLE egress_requests (
  sandbox_id text NOT NULL,
  seq bigint NOT NULL CHECK (seq > 0),
  id text NOT NULL UNIQUE,
  session_id text NOT NULL,
  team_id text NOT NULL,
  -- 'started' stays when the broker was killed: it may have gone out.
  state text NOT NULL CHECK (state IN ('started', 'completed', 'failed', 'denied')),
  decision text NOT NULL CHECK (decision IN ('allow', 'deny', 'ask')),
  -- Which rule decided, for people.
  rule text NOT NULL,
  code text,
  method text,
  -- NULL where no host could be told from what was sent.
  host text,
  port integer,
  is_tls boolean NOT NULL DEFAULT false,
  -- Without query.
  path text,
  status integer,
  -- From the sandbox, and to it.
  bytes_out bigint NOT NULL DEFAULT 0,
  bytes_in bigint NOT NULL DEFAULT 0,
  duration_ms integer,
  -- Names, never values.
  credentials jsonb NOT NULL DEFAULT '[]',
  approval_id text,
  error text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (sandbox_id, seq)
);
CREATE INDEX egress_requests_by_session ON egress_requests (session_id, created_at DESC, id DESC);

-- Something tried what it may not, in a way that does not happen by accident.
CREATE TABLE security_events (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  session_id text NOT NULL,
  sandbox_id text,
  kind text NOT NULL,
  message text NOT NULL,
  host text,
  egress_request_id text,
  details jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX security_events_by_team ON security_events (team_id, created_at DESC, id DESC);
CREATE INDEX security_events_by_session ON security_events (session_id, created_at DESC, id DESC);

-- An approval about the network belongs to no tool call: subject says what it is about, and is asked once at a time.
ALTER TABLE approvals ALTER COLUMN effect_id DROP NOT NULL;
ALTER TABLE approvals ADD COLUMN subject text;
ALTER TABLE approvals DROP CONSTRAINT approvals_kind_check;
ALTER TABLE approvals ADD CONSTRAINT approvals_kind_check CHECK (kind IN ('effect', 'lost_effect', 'egress'));
ALTER TABLE approvals ADD CONSTRAINT approvals_subject_check
  CHECK ((kind = 'egress') = (effect_id IS NULL) AND (kind = 'egress') = (subject IS NOT NULL));
CREATE UNIQUE INDEX approvals_one_subject ON approvals (session_id, subject) WHERE kind = 'egress' AND state = 'pending';
CREATE INDEX approvals_egress ON approvals (session_id, subject, created_at DESC) WHERE kind = 'egress';
CREATE INDEX approvals_egress_expiry ON approvals (expires_at) WHERE kind = 'egress' AND state = 'pending';

-- What an answered question opens or keeps closed for a while.
CREATE TABLE egress_grants (
  approval_id text PRIMARY KEY REFERENCES approvals (id),
  session_id text NOT NULL,
  subject text NOT NULL,
  is_allowed boolean NOT NULL,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX egress_grants_by_subject ON egress_grants (session_id, subject, expires_at DESC);

-- Rules of a team that hold in all its environments, before theirs.
CREATE TABLE egress_policies (
  team_id text PRIMARY KEY,
  policy jsonb NOT NULL,
  updated_by text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Down Migration

DROP TABLE egress_policies, egress_grants, security_events, egress_requests;
DROP INDEX approvals_one_subject, approvals_egress, approvals_egress_expiry;
DELETE FROM approvals WHERE kind = 'egress';
ALTER TABLE approvals DROP CONSTRAINT approvals_subject_check;
ALTER TABLE approvals DROP CONSTRAINT approvals_kind_check;
ALTER TABLE approvals ADD CONSTRAINT approvals_kind_check CHECK (kind IN ('effect', 'lost_effect'));
ALTER TABLE approvals DROP COLUMN subject;
ALTER TABLE approvals ALTER COLUMN effect_id SET NOT NULL;
