-- name: record_model
-- The first record of a model stands: its id is a fingerprint of all that made it.
INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest)
VALUES (:model_id, :release_key, :dataset_id, :recipe, :stage, :parent_model_id, :uri, CAST(:manifest AS jsonb))
ON CONFLICT (model_id) DO NOTHING;

-- name: record_training_metrics
INSERT INTO training_metrics (
    model_id, step, loss, learning_rate, tokens_seen, tokens_per_second, model_flops_utilization, peak_memory_bytes
)
VALUES (
    :model_id, :step, :loss, :learning_rate, :tokens_seen, :tokens_per_second, :model_flops_utilization, :peak_memory_bytes
)
ON CONFLICT (model_id, step) DO NOTHING;

-- name: record_training_progress
INSERT INTO training_progress (
    model_id, step, steps, loss, learning_rate, tokens_seen, tokens_per_second, model_flops_utilization, peak_memory_bytes,
    seconds_left
)
VALUES (
    :model_id, :step, :steps, :loss, :learning_rate, :tokens_seen, :tokens_per_second, :model_flops_utilization,
    :peak_memory_bytes, :seconds_left
)
ON CONFLICT (model_id) DO UPDATE SET
    step = excluded.step, steps = excluded.steps, loss = excluded.loss, learning_rate = excluded.learning_rate,
    tokens_seen = excluded.tokens_seen, tokens_per_second = excluded.tokens_per_second,
    model_flops_utilization = excluded.model_flops_utilization, peak_memory_bytes = excluded.peak_memory_bytes,
    seconds_left = excluded.seconds_left, updated_at = now();

-- name: end_training_progress
DELETE FROM training_progress WHERE model_id = :model_id;

-- name: list_training_progress
-- What is being trained, or was when it was cut off.
SELECT model_id, step, steps, loss, learning_rate, tokens_seen, tokens_per_second, model_flops_utilization, peak_memory_bytes,
    seconds_left, updated_at
FROM training_progress ORDER BY updated_at DESC;

-- name: fetch_model
SELECT model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest, created_at
FROM models WHERE model_id = :model_id;

-- name: list_training_metrics
SELECT step, loss, learning_rate, tokens_seen, tokens_per_second, model_flops_utilization, peak_memory_bytes
FROM training_metrics WHERE model_id = :model_id ORDER BY step;
