-- Up Migration

-- What the Temporal schedule must show, and what it was last made to show: the sweep repairs the difference.
ALTER TABLE deployments
  ADD COLUMN schedule_revision integer NOT NULL DEFAULT 1,
  ADD COLUMN schedule_synced_revision integer NOT NULL DEFAULT 0;
CREATE INDEX deployments_unsynced ON deployments (updated_at) WHERE schedule_revision <> schedule_synced_revision;

-- Down Migration

DROP INDEX deployments_unsynced;
ALTER TABLE deployments DROP COLUMN schedule_revision, DROP COLUMN schedule_synced_revision;
