-- name: fetch_newest_step_run_id
SELECT coalesce(max(step_run_id), 0) AS step_run_id FROM step_runs;

-- name: list_step_runs_after
SELECT step, subject, seconds, peak_memory_mib FROM step_runs WHERE step_run_id > :step_run_id ORDER BY step_run_id;

-- name: count_loop_rows
SELECT
    (SELECT count(*) FROM releases) AS releases,
    (SELECT count(*) FROM codes WHERE is_billable) AS billable_codes,
    (SELECT count(*) FROM datasets) AS datasets,
    (SELECT count(*) FROM models) AS models,
    (SELECT count(*) FROM verdicts) AS verdicts,
    (SELECT count(*) FROM promotions) AS promotions,
    (SELECT count(*) FROM encounters) AS encounters,
    (SELECT count(*) FROM coded_notes WHERE status = 'coded') AS coded_notes,
    (SELECT count(*) FROM predictions) AS predictions;

-- name: fetch_newest_verdict
SELECT verdict_id, evaluation_id, model_id, decision, reasons FROM verdicts ORDER BY created_at DESC LIMIT 1;

-- name: find_run_that_coded
SELECT coding_run_id FROM coded_notes WHERE encounter_id = :encounter_id AND status = 'coded' ORDER BY coded_at DESC LIMIT 1;
