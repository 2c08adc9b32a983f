-- name: record_dataset
INSERT INTO datasets (dataset_id, release_key, uri, manifest)
VALUES (:dataset_id, :release_key, :uri, CAST(:manifest AS jsonb))
ON CONFLICT (dataset_id) DO NOTHING;
