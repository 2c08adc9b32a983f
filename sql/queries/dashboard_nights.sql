-- name: list_nights
SELECT run.coding_run_id, run.from_date, run.to_date, run.model_id, run.status, run.encounter_count, run.started_at, run.finished_at,
       figures.notes, figures.codes, figures.mean_confidence, figures.auto_share, figures.review_share, figures.failed_share,
       coalesce(jsonb_array_length(figures.out_of_band), 0) AS out_of_band_count
FROM coding_runs AS run
LEFT JOIN night_statistics AS figures USING (coding_run_id)
WHERE CAST(:after_started_at AS timestamptz) IS NULL
   OR (run.started_at, run.coding_run_id) < (CAST(:after_started_at AS timestamptz), :after_run_id)
ORDER BY run.started_at DESC, run.coding_run_id DESC
LIMIT :limit;

-- name: fetch_newest_night
SELECT coding_run_id, from_date, to_date, model_id, status, encounter_count, started_at, finished_at
FROM coding_runs ORDER BY started_at DESC, coding_run_id DESC LIMIT 1;

-- name: fetch_night
SELECT run.coding_run_id, run.from_date, run.to_date, run.model_id, run.status, run.encounter_count, run.started_at, run.finished_at
FROM coding_runs AS run
WHERE run.coding_run_id = :coding_run_id;
