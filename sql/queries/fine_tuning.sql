-- name: lock_fine_tuning
-- Until the transaction ends nobody else looks for, or begins, a job for the same model.
SELECT pg_advisory_xact_lock(hashtextextended(:model_id, 0));

-- name: list_fine_tuning_jobs
SELECT server_url, job_id, status, failure FROM fine_tuning_jobs WHERE model_id = :model_id ORDER BY created_at, job_id;

-- name: record_fine_tuning_job
INSERT INTO fine_tuning_jobs (server_url, job_id, model_id, status, failure, estimated_tokens, estimated_cost, trained_tokens)
VALUES (:server_url, :job_id, :model_id, :status, :failure, :estimated_tokens, :estimated_cost, :trained_tokens)
ON CONFLICT (server_url, job_id) DO UPDATE
SET status = excluded.status, failure = excluded.failure, trained_tokens = excluded.trained_tokens, updated_at = now();

-- name: list_jobs_under_way
SELECT model_id, job_id, status, estimated_tokens, estimated_cost, created_at FROM fine_tuning_jobs
WHERE status NOT IN ('succeeded', 'failed', 'cancelled') ORDER BY created_at DESC;
