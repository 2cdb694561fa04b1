-- Up Migration

-- Answers that may be given again. `in_flight`: one asker makes the answer, the others wait for it until its lease ends.
CREATE TABLE cached_answers (
  -- Digest of what was asked, with team, protocol and form in it.
  key text PRIMARY KEY,
  layer text NOT NULL CHECK (layer IN ('response', 'content')),
  team_id text NOT NULL,
  state text NOT NULL CHECK (state IN ('in_flight', 'complete')),
  owner text NOT NULL,
  lease_expires_at timestamptz NOT NULL,
  answer jsonb,
  body bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  CHECK ((state = 'complete') = (answer IS NOT NULL AND body IS NOT NULL AND expires_at IS NOT NULL))
);
CREATE INDEX cached_answers_by_age ON cached_answers (created_at);
CREATE INDEX cached_answers_by_expiry ON cached_answers (expires_at) WHERE state = 'complete';

-- Static prefixes seen for an agent version. More than one: something changes what ought to be the same in every call.
CREATE TABLE prompt_prefixes (
  agent_id text NOT NULL,
  agent_version integer NOT NULL,
  fingerprint text NOT NULL,
  tools_digest text NOT NULL,
  system_digest text NOT NULL,
  skills_digest text NOT NULL,
  size_bytes integer NOT NULL,
  changed jsonb NOT NULL DEFAULT '[]',
  -- clock_timestamp(): two of one transaction have an order, too.
  first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (agent_id, agent_version, fingerprint),
  FOREIGN KEY (agent_id, agent_version) REFERENCES agent_versions (agent_id, version)
);

-- Hits and misses, added up in batches.
CREATE TABLE cache_counts (
  agent_id text NOT NULL,
  agent_version integer NOT NULL,
  layer text NOT NULL CHECK (layer IN ('prompt', 'response', 'content')),
  hits bigint NOT NULL DEFAULT 0,
  misses bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (agent_id, agent_version, layer)
);

-- What calls with a key may ask for beyond their agent's settings: KeyCaching.
ALTER TABLE virtual_keys ADD COLUMN cache jsonb;
ALTER TABLE api_keys ADD COLUMN cache jsonb;
-- 'hit': the answer was given again and cost nothing.
ALTER TABLE ledger ADD COLUMN cache text CHECK (cache IN ('hit'));

-- Down Migration

ALTER TABLE ledger DROP COLUMN cache;
ALTER TABLE api_keys DROP COLUMN cache;
ALTER TABLE virtual_keys DROP COLUMN cache;
DROP TABLE cache_counts, prompt_prefixes, cached_answers;
