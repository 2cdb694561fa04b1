#!/bin/sh
# Runs once, in an empty volume: each program gets a role of its own that owns nothing but its own databases.
set -eu

psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set=longhaul_password="$LONGHAUL_POSTGRES_PASSWORD" \
  --set=temporal_password="$TEMPORAL_POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE longhaul LOGIN PASSWORD :'longhaul_password';
CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';
CREATE DATABASE longhaul OWNER longhaul;
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE CONNECT ON DATABASE longhaul, temporal, temporal_visibility FROM PUBLIC;
SQL
