-- Up Migration

-- How long what a step or a tool call needs was seen to be away, by attempts that really ran: time in which no worker
-- was there to look does not count.
CREATE TABLE outages (
  session_id text NOT NULL REFERENCES sessions (id),
  place text NOT NULL,
  away_ms bigint NOT NULL,
  failed_at timestamptz NOT NULL,
  PRIMARY KEY (session_id, place)
);

-- What the model is shown of a message that is too long for a prompt; NULL: the message as it was sent.
ALTER TABLE inputs ADD COLUMN shown jsonb;

-- The sweep walks through both in order of id.
CREATE INDEX sessions_live ON sessions (id) WHERE status <> 'terminated';
CREATE INDEX deployment_runs_open ON deployment_runs (id) WHERE status = 'running';
CREATE INDEX virtual_keys_by_expiry ON virtual_keys (expires_at);

-- Down Migration

DROP INDEX sessions_live, deployment_runs_open, virtual_keys_by_expiry;
ALTER TABLE inputs DROP COLUMN shown;
DROP TABLE outages;
