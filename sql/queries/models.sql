-- name: record_model
-- The first record of a model stands: its id is a fingerprint of all that made it.
INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest)
VALUES (:model_id, :release_key, :dataset_id, :recipe, :stage, :parent_model_id, :uri, CAST(:manifest AS jsonb))
ON CONFLICT (model_id) DO NOTHING;

-- name: record_training_metrics
INSERT INTO training_metrics (model_id, step, loss, learning_rate, tokens_seen, tokens_per_second)
VALUES (:model_id, :step, :loss, :learning_rate, :tokens_seen, :tokens_per_second)
ON CONFLICT (model_id, step) DO NOTHING;

-- name: fetch_model
SELECT model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest, created_at
FROM models WHERE model_id = :model_id;

-- name: list_training_metrics
SELECT step, loss, learning_rate, tokens_seen, tokens_per_second FROM training_metrics WHERE model_id = :model_id ORDER BY step;
