-- name: lock_releases
-- Two ingests never run at once: each looks at its neighbours.
SELECT pg_advisory_xact_lock(:lock);

-- name: fetch_release
SELECT release_key, effective_from, source, content_sha256, previous_release_key, code_count, billable_count, uri, ingested_at
FROM releases WHERE release_key = :release_key;

-- The loaded release of a name; where it was withdrawn, the one that stands in its stead.
-- name: find_release_named
SELECT standing.release_key, standing.effective_from, standing.content_sha256, standing.uri
FROM releases AS named
JOIN releases AS standing ON standing.effective_from = named.effective_from AND standing.withdrawn_at IS NULL
WHERE named.release_key = :release_key;

-- Of a release that stands: the one whose place it took last.
-- name: find_withdrawn_release
SELECT release_key, effective_from FROM releases
WHERE effective_from = :effective_from AND withdrawn_at IS NOT NULL
ORDER BY withdrawn_at DESC LIMIT 1;

-- name: withdraw_release
UPDATE releases SET withdrawn_at = now() WHERE release_key = :release_key;

-- name: count_withdrawn_releases
SELECT count(*) AS releases FROM releases WHERE effective_from = :effective_from AND withdrawn_at IS NOT NULL;

-- name: list_releases
SELECT release_key, effective_from, effective_to, source, content_sha256, previous_release_key, code_count, billable_count, uri,
       ingested_at
FROM releases JOIN release_validity USING (release_key, effective_from) ORDER BY effective_from;

-- name: find_release_on
SELECT release_key, uri FROM releases JOIN release_validity USING (release_key)
WHERE :on_date BETWEEN release_validity.effective_from AND coalesce(effective_to, 'infinity');

-- name: find_release_before
SELECT release_key, effective_from, billable_count, code_count FROM releases
WHERE effective_from < :effective_from AND withdrawn_at IS NULL ORDER BY effective_from DESC LIMIT 1;

-- name: find_release_after
SELECT release_key, effective_from, billable_count, code_count FROM releases
WHERE effective_from > :effective_from AND withdrawn_at IS NULL ORDER BY effective_from LIMIT 1;

-- name: fetch_billable_as_columns
SELECT coalesce(array_agg(code), '{}') AS codes, coalesce(array_agg(long_title), '{}') AS titles
FROM codes WHERE release_key = :release_key AND is_billable;

-- name: upsert_release
INSERT INTO releases (release_key, effective_from, source, content_sha256, previous_release_key, code_count, billable_count, uri)
VALUES (:release_key, :effective_from, :source, :content_sha256, :previous_release_key, :code_count, :billable_count, :uri)
ON CONFLICT (release_key) DO UPDATE SET
    source = excluded.source, content_sha256 = excluded.content_sha256, previous_release_key = excluded.previous_release_key,
    code_count = excluded.code_count, billable_count = excluded.billable_count, uri = excluded.uri, ingested_at = now();

-- name: link_release
UPDATE releases SET previous_release_key = :previous_release_key WHERE release_key = :release_key;

-- name: delete_codes
DELETE FROM codes WHERE release_key = :release_key;

-- name: delete_code_terms
DELETE FROM code_terms WHERE release_key = :release_key;

-- name: delete_seventh_characters
DELETE FROM seventh_characters WHERE release_key = :release_key;

-- name: delete_code_conversions
DELETE FROM code_conversions WHERE release_key = :release_key;

-- name: delete_release_files
DELETE FROM release_files WHERE release_key = :release_key;

-- name: delete_code_changes
DELETE FROM code_changes WHERE release_key = :release_key;

-- name: update_short_titles
UPDATE codes SET short_title = fresh.short_title
FROM unnest(CAST(:codes AS text[]), CAST(:short_titles AS text[])) AS fresh (code, short_title)
WHERE codes.release_key = :release_key AND codes.code = fresh.code AND codes.short_title <> fresh.short_title;

-- A claim counts: whoever codes a note right now holds these codes in memory.
-- name: count_release_dependents
SELECT (SELECT count(*) FROM datasets WHERE release_key = :release_key) AS datasets,
       (SELECT count(*) FROM models WHERE release_key = :release_key) AS models,
       (SELECT count(*) FROM coded_notes WHERE release_key = :release_key) AS "coded notes",
       (SELECT count(*) FROM predictions WHERE release_key = :release_key) AS predictions,
       (SELECT count(*) FROM note_claims WHERE release_key = :release_key) AS "claimed notes";

-- name: list_release_files
SELECT file_name, kind, sha256, row_count FROM release_files WHERE release_key = :release_key ORDER BY file_name;

-- name: count_code_changes
SELECT kind, count(*) AS count FROM code_changes WHERE release_key = :release_key GROUP BY kind ORDER BY kind;

-- name: list_code_changes
SELECT code, kind, old_title, new_title, previous_release_key FROM code_changes WHERE release_key = :release_key ORDER BY code;

-- A report that is the newest of its release already stays as it is; an older one that is right again becomes the newest.
-- name: record_release_report
INSERT INTO release_reports (report_id, release_key, previous_release_key, uri, counts)
VALUES (:report_id, :release_key, :previous_release_key, :uri, CAST(:counts AS jsonb))
ON CONFLICT (report_id) DO UPDATE SET created_at = now()
WHERE EXISTS (
    SELECT FROM release_reports AS newer
    WHERE newer.release_key = release_reports.release_key AND newer.created_at > release_reports.created_at
);

-- name: list_release_reports
SELECT report_id, release_key, previous_release_key, uri, counts, created_at FROM release_reports ORDER BY release_key, created_at DESC;

-- name: list_outdated_encounters
SELECT encounter_id, discharge_date,
       EXISTS (
           SELECT FROM reviews
           WHERE reviews.encounter_id = outdated.encounter_id AND reviews.note_sha256 = outdated.note_sha256 AND status = 'finished'
       ) AS is_reviewed
FROM outdated_codings AS outdated WHERE release_key = :release_key ORDER BY encounter_id;

-- name: find_last_coded_day
SELECT discharge_date FROM current_codings ORDER BY discharge_date DESC LIMIT 1;

-- name: count_used_codes
SELECT code, count(*) AS encounters FROM final_codes WHERE discharge_date BETWEEN :first AND :last GROUP BY code;

-- The codes of corrections that may train, without the phrases.
-- name: list_correction_codes
SELECT chosen.action_id, chosen.code
FROM reviews AS review JOIN review_codes AS chosen USING (review_id)
WHERE review.status = 'finished' AND chosen.state = 'accepted' AND chosen.origin IN ('replaced', 'added')
  AND chosen.evidence_start IS NOT NULL
ORDER BY chosen.action_id, chosen.code;

-- A run that found its model trained already takes no time: the longest of each model counts. NULL where nothing was measured.
-- name: measure_pace
SELECT (SELECT sum(seconds) / sum((detail ->> 'coded')::integer) FROM step_runs
        WHERE step = 'code_shard' AND (detail ->> 'coded')::integer > 0) AS seconds_a_note,
       (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended - began)) / 60
        FROM (SELECT max(acted_at) FILTER (WHERE action = 'claim') AS began, max(acted_at) FILTER (WHERE action = 'finish') AS ended
              FROM review_actions GROUP BY review_id) AS held
        WHERE ended > began) AS minutes_a_review,
       (SELECT sum(seconds) / 60
        FROM (SELECT DISTINCT ON (model.stage) max(step_run.seconds) AS seconds
              FROM step_runs AS step_run JOIN models AS model ON model.model_id = step_run.subject
              WHERE step_run.step = 'train_model' AND model.stage IN ('stage_one', 'stage_two')
              GROUP BY model.model_id, model.stage, model.created_at
              ORDER BY model.stage, model.created_at DESC) AS newest) AS training_minutes;
