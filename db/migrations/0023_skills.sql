-- Up Migration

-- Skills of a team: folders with a SKILL.md, in versions that never change.
CREATE TABLE skills (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  -- Of all versions: the `name` of their SKILL.md.
  name text NOT NULL,
  display_name text NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- Its content stays for agents and sessions that have it.
  deleted_at timestamptz
);
CREATE INDEX skills_by_team ON skills (team_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE skill_versions (
  id text PRIMARY KEY,
  skill_id text NOT NULL REFERENCES skills (id),
  description text NOT NULL,
  size_bytes integer NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  deleted_at timestamptz
);
CREATE INDEX skill_versions_by_skill ON skill_versions (skill_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE skill_files (
  version_id text NOT NULL REFERENCES skill_versions (id),
  -- Below the folder of the skill.
  path text NOT NULL,
  content bytea NOT NULL,
  PRIMARY KEY (version_id, path)
);

-- Down Migration

DROP TABLE skill_files, skill_versions, skills;
