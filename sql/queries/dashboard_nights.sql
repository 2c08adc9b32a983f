-- name: list_nights
SELECT run.coding_run_id, run.from_date, run.to_date, run.model_id, run.status, run.encounter_count, run.started_at, run.finished_at,
       run.recode_release_key, figures.notes, figures.codes, figures.mean_confidence, figures.auto_share, figures.review_share,
       figures.failed_share, figures.nights_compared, coalesce(jsonb_array_length(figures.out_of_band), 0) AS out_of_band_count
FROM coding_runs AS run
LEFT JOIN night_statistics AS figures USING (coding_run_id)
WHERE CAST(:after_started_at AS timestamptz) IS NULL
   OR (run.started_at, run.coding_run_id) < (CAST(:after_started_at AS timestamptz), :after_run_id)
ORDER BY run.started_at DESC, run.coding_run_id DESC
LIMIT :limit;

-- One run with its figures, NULL where it was not measured.
-- name: fetch_night
SELECT run.coding_run_id, run.from_date, run.to_date, run.model_id, run.status, run.encounter_count, run.started_at, run.finished_at,
       run.recode_release_key, figures.notes, figures.codes, figures.mean_confidence, figures.auto_share, figures.review_share,
       figures.failed_share, figures.unknown_word_share, figures.chapters, figures.nights_compared, figures.stability_index,
       coalesce(figures.out_of_band, '[]') AS out_of_band, figures.measured_at
FROM coding_runs AS run
LEFT JOIN night_statistics AS figures USING (coding_run_id)
WHERE run.coding_run_id = :coding_run_id;

-- name: count_night_notes
SELECT coalesce(sum(coded), 0)::integer AS coded, coalesce(sum(failed), 0)::integer AS failed,
       coalesce(array_agg(release_key ORDER BY release_key), '{}') AS release_keys
FROM (
    SELECT release_key,
           count(*) FILTER (WHERE status = 'coded') AS coded,
           count(*) FILTER (WHERE status = 'failed') AS failed
    FROM coded_notes
    WHERE coding_run_id = :coding_run_id
    GROUP BY release_key
) AS of_release;

-- The nights that drift compares a run with, as `list_earlier_nights` does, with their dates.
-- name: list_nights_before
SELECT past.coding_run_id, past.from_date, past.to_date, past.started_at, earlier.notes, earlier.codes, earlier.mean_confidence,
       earlier.auto_share, earlier.review_share, earlier.failed_share, earlier.unknown_word_share, earlier.chapters
FROM coding_runs AS run
JOIN coding_runs AS past ON past.to_date < run.to_date
JOIN night_statistics AS earlier ON earlier.coding_run_id = past.coding_run_id
WHERE run.coding_run_id = :coding_run_id AND earlier.notes > 0
ORDER BY past.to_date DESC, past.started_at DESC
LIMIT :limit;

-- What a run did not code, by kind and reason.
-- name: count_night_gaps
SELECT 'failed' AS kind, failure AS reason, count(*) AS notes, min(encounter_id) AS example
FROM coded_notes WHERE coding_run_id = :coding_run_id AND status = 'failed' GROUP BY failure
UNION ALL
SELECT 'uncoded', reason, count(*), min(encounter_id) FROM uncoded_encounters WHERE coding_run_id = :coding_run_id GROUP BY reason
UNION ALL
SELECT 'quarantined', reason, count(*), min(place) FROM quarantined_notes WHERE coding_run_id = :coding_run_id GROUP BY reason
ORDER BY kind, notes DESC, reason;

-- Where they are, in the order of kind and place; a page at a time.
-- name: list_night_gaps
SELECT kind, place, reason, message
FROM (
    SELECT 'failed' AS kind, encounter_id AS place, failure AS reason, '' AS message
    FROM coded_notes WHERE coding_run_id = :coding_run_id AND status = 'failed'
    UNION ALL
    SELECT 'uncoded', encounter_id, reason, message FROM uncoded_encounters WHERE coding_run_id = :coding_run_id
    UNION ALL
    SELECT 'quarantined', place, reason, '' FROM quarantined_notes WHERE coding_run_id = :coding_run_id
) AS gap
WHERE CAST(:after_kind AS text) IS NULL OR (kind, place) > (:after_kind, :after_place)
ORDER BY kind, place
LIMIT :limit;

-- Seconds that workers spent on the shards of a run, and the largest of them.
-- name: sum_night_work
SELECT count(*) AS shards, coalesce(sum(seconds), 0) AS seconds, max(peak_memory_mib) AS peak_memory_mib
FROM step_runs
WHERE step = 'code_shard' AND subject = :coding_run_id;

-- The newest coding run of an Airflow run: its id begins with that of the run, and the model's follows.
-- name: find_night_of_run
SELECT coding_run_id FROM coding_runs
WHERE starts_with(coding_run_id, :run_id || ' ')
ORDER BY started_at DESC LIMIT 1;
