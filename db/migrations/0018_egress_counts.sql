-- Up Migration

-- A sandbox that is refused again and again gets no row for each refusal: beyond some a minute, those that are alike are one
-- row that counts them. What is allowed keeps a row of its own.
ALTER TABLE egress_requests ADD COLUMN count integer NOT NULL DEFAULT 1 CHECK (count > 0);
CREATE INDEX egress_requests_counted ON egress_requests (sandbox_id) WHERE count > 1;

-- Down Migration

DROP INDEX egress_requests_counted;
ALTER TABLE egress_requests DROP COLUMN count;
