#!/bin/sh
# Brings Temporal's two databases to the schema of this image; does nothing when they are there already.
set -eu

for database in temporal temporal_visibility; do
  case "$database" in
    temporal) folder=temporal ;;
    *) folder=visibility ;;
  esac
  sql() {
    temporal-sql-tool --plugin postgres12 --endpoint "$SQL_HOST" --port 5432 --user temporal --database "$database" "$@"
  }
  # A version above 0.0 is kept as it is.
  sql setup-schema --version 0.0
  sql update-schema --schema-dir "/etc/temporal/schema/postgresql/v12/$folder/versioned"
done
