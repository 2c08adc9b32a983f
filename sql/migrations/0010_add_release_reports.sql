-- What a release changes here, as reported; the newest row of a release counts. Its folder in the artifact store has the rest.
CREATE TABLE release_reports (
    report_id text PRIMARY KEY,
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    previous_release_key text REFERENCES releases,                 -- NULL: the first loaded release
    uri text NOT NULL,
    counts jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The codes of each encounter that count: as finished in a review of its current coding's text, else as coded.
CREATE VIEW final_codes AS
SELECT coding.encounter_id, coding.discharge_date, used.code
FROM current_codings AS coding
CROSS JOIN LATERAL (
    SELECT max(review_id) AS review_id FROM reviews
    WHERE reviews.encounter_id = coding.encounter_id AND reviews.note_sha256 = coding.note_sha256 AND reviews.status = 'finished'
) AS finished
CROSS JOIN LATERAL (
    SELECT chosen.code FROM review_codes AS chosen
    WHERE chosen.review_id = finished.review_id AND chosen.state = 'accepted'
    UNION ALL
    SELECT prediction.code FROM predictions AS prediction
    WHERE finished.review_id IS NULL
      AND (prediction.encounter_id, prediction.note_sha256, prediction.model_id, prediction.release_key)
        = (coding.encounter_id, coding.note_sha256, coding.model_id, coding.release_key)
) AS used;
