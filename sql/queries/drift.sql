-- Figures of one coding run, without those that need the words of its notes.
-- name: count_night
SELECT count(*)::integer AS notes,
       count(*) FILTER (WHERE note.status = 'failed')::integer AS failed,
       count(*) FILTER (WHERE found.review > 0)::integer AS reviewed,
       coalesce(sum(found.codes), 0)::integer AS codes,
       coalesce(sum(found.auto), 0)::integer AS auto
FROM coded_notes AS note
LEFT JOIN LATERAL (
    SELECT count(*) AS codes,
           count(*) FILTER (WHERE decision = 'auto') AS auto,
           count(*) FILTER (WHERE decision = 'review') AS review
    FROM predictions
    WHERE (encounter_id, note_sha256, model_id, release_key)
        = (note.encounter_id, note.note_sha256, note.model_id, note.release_key)
) AS found ON true
WHERE note.coding_run_id = :coding_run_id;

-- name: count_night_codes
SELECT prediction.code, count(*)::integer AS count, sum(prediction.confidence) AS confidence,
       sum(prediction.confidence * prediction.confidence) AS confidence_squared
FROM coded_notes AS note
JOIN predictions AS prediction USING (encounter_id, note_sha256, model_id, release_key)
WHERE note.coding_run_id = :coding_run_id
GROUP BY prediction.code
ORDER BY prediction.code;

-- The same sample whenever it is asked for: the notes with the smallest hashes.
-- name: sample_night_notes
SELECT note.release_key, summary.note_text
FROM coded_notes AS note
JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
WHERE note.coding_run_id = :coding_run_id
ORDER BY note.note_sha256, note.encounter_id
LIMIT :size;

-- The nights before a run, by the last discharge date they cover, newest first. Runs without any note, such as a night that was run
-- again, are no nights to compare with.
-- name: list_earlier_nights
SELECT earlier.notes, earlier.codes, earlier.mean_confidence, earlier.confidence_deviation, earlier.auto_share, earlier.review_share,
       earlier.failed_share, earlier.unknown_word_share, earlier.chapters
FROM coding_runs AS run
JOIN coding_runs AS past ON past.to_date < run.to_date
JOIN night_statistics AS earlier ON earlier.coding_run_id = past.coding_run_id
WHERE run.coding_run_id = :coding_run_id AND earlier.notes > 0
ORDER BY past.to_date DESC, past.started_at DESC
LIMIT :size;

-- name: save_night_statistics
INSERT INTO night_statistics (
    coding_run_id, notes, codes, mean_confidence, confidence_deviation, auto_share, review_share, failed_share, unknown_word_share,
    chapters, nights_compared, stability_index, out_of_band
)
VALUES (
    :coding_run_id, :notes, :codes, :mean_confidence, :confidence_deviation, :auto_share, :review_share, :failed_share,
    :unknown_word_share, CAST(:chapters AS jsonb), :nights_compared, :stability_index, CAST(:out_of_band AS jsonb)
)
ON CONFLICT (coding_run_id) DO UPDATE
SET notes = EXCLUDED.notes, codes = EXCLUDED.codes, mean_confidence = EXCLUDED.mean_confidence,
    confidence_deviation = EXCLUDED.confidence_deviation, auto_share = EXCLUDED.auto_share, review_share = EXCLUDED.review_share,
    failed_share = EXCLUDED.failed_share, unknown_word_share = EXCLUDED.unknown_word_share, chapters = EXCLUDED.chapters,
    nights_compared = EXCLUDED.nights_compared, stability_index = EXCLUDED.stability_index, out_of_band = EXCLUDED.out_of_band,
    measured_at = now();
