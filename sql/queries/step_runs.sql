-- name: record_step_run
INSERT INTO step_runs (step, subject, seconds, peak_memory_mib, detail)
VALUES (:step, :subject, :seconds, :peak_memory_mib, CAST(:detail AS jsonb));

-- name: list_step_runs
SELECT step, subject, seconds, peak_memory_mib, detail, finished_at FROM step_runs ORDER BY step_run_id;
