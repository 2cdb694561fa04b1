-- Up Migration

CREATE INDEX inputs_by_turn ON inputs (session_id, turn);
CREATE INDEX model_calls_in_flight ON model_calls (session_id) WHERE state = 'in_flight';
CREATE INDEX effects_started ON effects (sandbox_id) WHERE state = 'started';
CREATE INDEX deployment_runs_by_session ON deployment_runs (session_id);
-- Not on updated_at: it changes with every event, and each change would touch the index.
CREATE INDEX sessions_at_work ON sessions (id) WHERE status IN ('running', 'rescheduling');

-- Down Migration

DROP INDEX inputs_by_turn, model_calls_in_flight, effects_started, deployment_runs_by_session, sessions_at_work;
