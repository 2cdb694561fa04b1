-- Up Migration

-- Files of a team: uploaded by clients, or taken from /mnt/session/outputs of a session's sandbox.
CREATE TABLE files (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  -- `writing` until the last piece is there; what a crash leaves in it is pruned.
  state text NOT NULL CHECK (state IN ('writing', 'ready', 'deleted')),
  source text NOT NULL CHECK (source IN ('upload', 'artifact')),
  filename text NOT NULL,
  mime_type text NOT NULL,
  size_bytes bigint NOT NULL DEFAULT 0,
  sha256 text,
  -- Of an artifact: its session, where it lay, and how the file looked then (size and time of change).
  session_id text REFERENCES sessions (id),
  path text,
  version_mark text,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  CHECK ((source = 'artifact') = (path IS NOT NULL)),
  CHECK (source <> 'artifact' OR session_id IS NOT NULL),
  CHECK (state <> 'ready' OR sha256 IS NOT NULL)
);
CREATE INDEX files_by_team ON files (team_id, created_at DESC, id DESC) WHERE state = 'ready';
CREATE INDEX files_by_session ON files (session_id, path) WHERE state <> 'deleted';
CREATE INDEX files_to_prune ON files (expires_at) WHERE state <> 'deleted' AND expires_at IS NOT NULL;
CREATE INDEX files_unfinished ON files (created_at) WHERE state = 'writing';

-- Content, in pieces of one size: no reader or writer holds a whole file.
CREATE TABLE file_pieces (
  file_id text NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  index integer NOT NULL,
  content bytea NOT NULL,
  PRIMARY KEY (file_id, index)
);
-- It is rarely text, and compressing it takes the server's time.
ALTER TABLE file_pieces ALTER COLUMN content SET STORAGE EXTERNAL;

-- Links that open one file to whoever holds them, until they expire.
CREATE TABLE file_links (
  token_hash bytea PRIMARY KEY,
  file_id text NOT NULL REFERENCES files (id) ON DELETE CASCADE,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);
CREATE INDEX file_links_by_file ON file_links (file_id);
CREATE INDEX file_links_by_expiry ON file_links (expires_at);

-- Down Migration

DROP TABLE file_links, file_pieces, files;
