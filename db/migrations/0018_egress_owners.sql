-- Up Migration

-- A sandbox that is refused again and again gets no row for each refusal: beyond some a minute, those that are alike are one
-- row that counts them. What is allowed keeps a row of its own.
ALTER TABLE egress_requests ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);
CREATE INDEX egress_requests_counted ON egress_requests (sandbox_id) WHERE count > 1;

-- Sandboxes of E2B programs go out as well. They belong to no session: sandbox and team say whose a row is.
ALTER TABLE egress_requests ALTER COLUMN session_id DROP NOT NULL;
ALTER TABLE security_events ALTER COLUMN session_id DROP NOT NULL;
-- What it may reach, and where the broker listens for it; null: nowhere.
ALTER TABLE e2b_sandboxes ADD COLUMN egress jsonb NOT NULL DEFAULT '{"internet": false, "allow": [], "deny": []}';
ALTER TABLE e2b_sandboxes ADD COLUMN egress_point jsonb;

-- Down Migration

ALTER TABLE e2b_sandboxes DROP COLUMN egress_point;
ALTER TABLE e2b_sandboxes DROP COLUMN egress;
DELETE FROM security_events WHERE session_id IS NULL;
ALTER TABLE security_events ALTER COLUMN session_id SET NOT NULL;
DELETE FROM egress_requests WHERE session_id IS NULL;
ALTER TABLE egress_requests ALTER COLUMN session_id SET NOT NULL;
DROP INDEX egress_requests_counted;
ALTER TABLE egress_requests DROP COLUMN count;
