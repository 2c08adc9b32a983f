-- name: lock_migrations
SELECT pg_advisory_xact_lock(:lock);

-- name: create_schema_migrations
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: find_schema_migrations
SELECT to_regclass('schema_migrations') IS NOT NULL AS found;

-- name: fetch_migration
SELECT name, sha256, applied_at FROM schema_migrations WHERE name = :name;

-- name: record_migration
INSERT INTO schema_migrations (name, sha256) VALUES (:name, :sha256);
