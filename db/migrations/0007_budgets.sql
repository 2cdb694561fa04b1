-- Up Migration

-- A pool of money: whatever its scope spends in one of its windows comes out of it.
CREATE TABLE budgets (
  id text PRIMARY KEY,
  team_id text NOT NULL,
  name text NOT NULL,
  scope_kind text NOT NULL CHECK (scope_kind IN
    ('org', 'team', 'user', 'agent', 'deployment', 'session', 'root_session', 'label', 'repo', 'key')),
  scope_id text NOT NULL,
  period text NOT NULL CHECK (period IN ('total', 'month', 'day', 'session', 'call')),
  hard_limit_micros bigint CHECK (hard_limit_micros > 0),
  soft_limit_micros bigint CHECK (soft_limit_micros > 0),
  -- Percent of the hard limit (of the soft one where there is no hard one) that raise an event.
  thresholds jsonb NOT NULL DEFAULT '[50, 80, 100]',
  -- Model that is called instead once this share is spent.
  degrade_to text,
  degrade_at_percent integer CHECK (degrade_at_percent BETWEEN 1 AND 100),
  -- Made from a session's `budget` field, and changed only with it.
  is_managed boolean NOT NULL DEFAULT false,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  CHECK (hard_limit_micros IS NOT NULL OR soft_limit_micros IS NOT NULL),
  CHECK ((degrade_to IS NULL) = (degrade_at_percent IS NULL))
);
CREATE INDEX budgets_by_scope ON budgets (scope_kind, scope_id) WHERE archived_at IS NULL;
CREATE INDEX budgets_by_team ON budgets (team_id, created_at DESC);
CREATE UNIQUE INDEX budgets_of_session ON budgets (scope_id) WHERE is_managed;

-- `total`, a UTC month or day, or a session's id. Reserved money is what gateways have leased and not spent or given back.
CREATE TABLE budget_windows (
  budget_id text NOT NULL REFERENCES budgets (id),
  window_key text NOT NULL,
  spent_micros bigint NOT NULL DEFAULT 0,
  reserved_micros bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (budget_id, window_key)
);
CREATE INDEX budget_windows_by_age ON budget_windows (updated_at);

-- A gateway process that may hold money; after its lease anybody gives back what it held.
CREATE TABLE budget_owners (
  owner text PRIMARY KEY,
  lease_expires_at timestamptz NOT NULL
);

-- Who holds how much of a window's reserved money.
CREATE TABLE budget_slices (
  owner text NOT NULL REFERENCES budget_owners (owner),
  budget_id text NOT NULL,
  window_key text NOT NULL,
  reserved_micros bigint NOT NULL,
  PRIMARY KEY (owner, budget_id, window_key)
);

-- Calls under way: the ledger row each gets should its gateway die, as far as the call is known to have come.
CREATE TABLE call_intents (
  id text PRIMARY KEY,
  owner text NOT NULL REFERENCES budget_owners (owner),
  entry jsonb NOT NULL,
  -- The windows that pay.
  windows jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX call_intents_by_owner ON call_intents (owner);

-- What was told of a pool, once for each window and limit.
CREATE TABLE budget_events (
  id text PRIMARY KEY,
  budget_id text NOT NULL REFERENCES budgets (id),
  window_key text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('threshold', 'soft_limit', 'exhausted')),
  percent integer NOT NULL,
  limit_micros bigint NOT NULL,
  spent_micros bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (budget_id, window_key, kind, percent, limit_micros)
);
CREATE INDEX budget_events_by_budget ON budget_events (budget_id, created_at DESC);

-- Sessions that have a budget already.
INSERT INTO budgets (id, team_id, name, scope_kind, scope_id, period, hard_limit_micros, is_managed, created_by)
SELECT 'bdgt_' || substr(md5(s.id), 1, 26), s.team_id, 'Session ' || s.id, 'root_session', s.id, 'total',
  (s.budget #>> '{max_list_cost,amount}')::bigint * 10000, true, s.created_by
FROM sessions s WHERE s.budget IS NOT NULL;
INSERT INTO budget_windows (budget_id, window_key, spent_micros)
SELECT b.id, 'total', coalesce(sum(l.cost_micros), 0)
FROM budgets b LEFT JOIN ledger l ON l.session_id = b.scope_id GROUP BY b.id;

-- Down Migration

DROP TABLE budget_events, call_intents, budget_slices, budget_owners, budget_windows, budgets;
