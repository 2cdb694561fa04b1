-- Up Migration

-- Model calls of a harness are numbered within the turn as they come: so many have been made in it.
ALTER TABLE turns ADD COLUMN model_calls integer NOT NULL DEFAULT 0;

-- Down Migration

ALTER TABLE turns DROP COLUMN model_calls;
