-- One export at a time: each takes the next number.
-- name: lock_exports
SELECT pg_advisory_xact_lock(:lock);

-- name: fetch_last_export
SELECT coalesce(max(export_id), 0) AS export_id FROM exports;

-- Encounters whose current text has final codes, in a state that was not exported last: a finished review, or a coding that leaves
-- nothing to review and at least one code. States are compared, not hours: what is committed late is not missed.
-- name: list_final_encounters
WITH current AS (
    SELECT DISTINCT ON (encounter_id) encounter_id, note_sha256
    FROM discharge_summaries
    ORDER BY encounter_id, version DESC
), reviewed AS (
    SELECT DISTINCT ON (encounter_id)
           encounter_id, note_sha256, model_id, release_key, review_id, version, finished_by, finished_at AS settled_at
    FROM reviews JOIN current USING (encounter_id, note_sha256)
    WHERE status = 'finished'
    ORDER BY encounter_id, review_id DESC
), coded AS (
    SELECT DISTINCT ON (encounter_id) encounter_id, note_sha256, model_id, release_key, coded_at AS settled_at
    FROM coded_notes JOIN current USING (encounter_id, note_sha256)
    WHERE status = 'coded'
    ORDER BY encounter_id, coded_at DESC, model_id DESC
), final AS (
    SELECT encounter_id, note_sha256, model_id, release_key, review_id, version, finished_by, settled_at
    FROM reviewed
    UNION ALL
    SELECT coded.encounter_id, coded.note_sha256, coded.model_id, coded.release_key, NULL, 0, NULL, coded.settled_at
    FROM coded
    JOIN LATERAL (
        SELECT count(*) AS codes, bool_and(decision = 'auto') AS is_sure
        FROM predictions
        WHERE (encounter_id, note_sha256, model_id, release_key)
            = (coded.encounter_id, coded.note_sha256, coded.model_id, coded.release_key)
    ) AS found ON found.codes > 0 AND found.is_sure
    WHERE NOT EXISTS (SELECT FROM reviewed WHERE reviewed.encounter_id = coded.encounter_id)
), last AS (
    SELECT DISTINCT ON (encounter_id) encounter_id, note_sha256, model_id, release_key, review_version, codes
    FROM exported_encounters
    ORDER BY encounter_id, export_id DESC
)
SELECT final.encounter_id, encounter.patient_id, encounter.discharge_date, final.note_sha256, final.model_id, final.release_key,
       final.review_id, final.version AS review_version, final.finished_by, final.settled_at,
       coalesce(last.codes, '{}') AS exported_codes
FROM final
JOIN encounters AS encounter USING (encounter_id)
LEFT JOIN last ON last.encounter_id = final.encounter_id
WHERE (final.note_sha256, final.model_id, final.release_key, final.version)
      IS DISTINCT FROM (last.note_sha256, last.model_id, last.release_key, last.review_version)
  AND NOT EXISTS (
      SELECT FROM reviews WHERE reviews.encounter_id = final.encounter_id AND reviews.status IN ('waiting', 'claimed')
  )
ORDER BY final.encounter_id
LIMIT :most;

-- name: list_final_codes
SELECT review.encounter_id, chosen.code, title.long_title AS title, chosen.rank,
       chosen.origin, prediction.confidence, chosen.evidence_start, chosen.evidence_end
FROM reviews AS review
JOIN review_codes AS chosen ON chosen.review_id = review.review_id AND chosen.state = 'accepted'
JOIN codes AS title ON title.release_key = chosen.release_key AND title.code = chosen.code
LEFT JOIN predictions AS prediction ON prediction.prediction_id = chosen.prediction_id AND prediction.code = chosen.code
WHERE review.review_id = ANY (CAST(:review_ids AS bigint[]))
UNION ALL
SELECT prediction.encounter_id, prediction.code, title.long_title, prediction.rank,
       'auto', prediction.confidence, prediction.evidence_start, prediction.evidence_end
FROM unnest(
    CAST(:encounter_ids AS text[]), CAST(:note_sha256s AS text[]), CAST(:model_ids AS text[]), CAST(:release_keys AS text[])
) AS wanted (encounter_id, note_sha256, model_id, release_key)
JOIN predictions AS prediction USING (encounter_id, note_sha256, model_id, release_key)
JOIN codes AS title ON title.release_key = prediction.release_key AND title.code = prediction.code;

-- name: record_export
INSERT INTO exports (export_id, uri, manifest, encounter_count)
VALUES (:export_id, :uri, CAST(:manifest AS jsonb), :encounter_count);

-- name: record_exported_encounters
INSERT INTO exported_encounters (export_id, encounter_id, note_sha256, model_id, release_key, review_version, codes)
VALUES (:export_id, :encounter_id, :note_sha256, :model_id, :release_key, :review_version, :codes);
