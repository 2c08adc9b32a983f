-- What the pages of reviews show. Only the last two read the text of a note.

-- The most urgent first; of one person alone where `holder` names them, claims that have run out included.
-- name: list_open_reviews
SELECT review.review_id, review.encounter_id, encounter.discharge_date, review.opened_at,
       review.priority, review.uncertainty, review.money, review.rarity,
       review.claimed_by, review.claimed_until, coalesce(review.claimed_until > now(), false) AS is_live,
       (SELECT count(*) FROM review_codes AS code WHERE code.review_id = review.review_id AND code.state = 'open') AS open_codes,
       (SELECT count(*) FROM review_codes AS code WHERE code.review_id = review.review_id) AS codes
FROM reviews AS review
JOIN encounters AS encounter USING (encounter_id)
WHERE review.status IN ('waiting', 'claimed')
  AND (CAST(:holder AS text) IS NULL OR (review.status = 'claimed' AND review.claimed_by = CAST(:holder AS text)))
  AND (CAST(:after_priority AS float) IS NULL
       OR (review.priority, review.review_id) < (CAST(:after_priority AS float), CAST(:after_id AS bigint)))
ORDER BY review.priority DESC, review.review_id DESC
LIMIT :limit;

-- The newest first.
-- name: list_finished_reviews
SELECT review.review_id, review.encounter_id, encounter.discharge_date, review.finished_by, review.finished_at,
       changed.kept, changed.corrected
FROM reviews AS review
JOIN encounters AS encounter USING (encounter_id)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'accepted') AS kept,
           count(DISTINCT prediction_id) FILTER (WHERE origin <> 'predicted' OR state = 'removed')   -- a replaced code is two rows
               + count(*) FILTER (WHERE prediction_id IS NULL) AS corrected
    FROM review_codes WHERE review_codes.review_id = review.review_id
) AS changed
WHERE review.status = 'finished'
  AND (CAST(:after_finished_at AS timestamptz) IS NULL
       OR (review.finished_at, review.review_id) < (CAST(:after_finished_at AS timestamptz), CAST(:after_id AS bigint)))
ORDER BY review.finished_at DESC, review.review_id DESC
LIMIT :limit;

-- No more than `most` are counted: nobody needs to know how much longer than that the queue is, and each page would pay for it.
-- name: count_reviews
SELECT (SELECT count(*) FROM (SELECT FROM reviews WHERE status IN ('waiting', 'claimed') LIMIT :most) AS counted) AS waiting,
       (SELECT count(*) FROM reviews WHERE status = 'claimed' AND claimed_by = :person) AS mine;

-- name: fetch_review_page
SELECT review.review_id, review.encounter_id, review.note_sha256, review.model_id, review.release_key, review.status, review.version,
       review.priority, review.uncertainty, review.money, review.rarity, review.opened_at,
       review.claimed_by, review.claimed_until, coalesce(review.claimed_until > now(), false) AS is_live,
       review.finished_by, review.finished_at,
       encounter.admission_date, encounter.discharge_date, encounter.sex, encounter.age_years,
       length(summary.note_text) AS note_length,
       EXISTS (
           SELECT FROM discharge_summaries AS newer
           WHERE newer.encounter_id = review.encounter_id AND newer.version > summary.version
       ) AS is_amended,
       (SELECT max(export_id) FROM exported_encounters AS exported
        WHERE exported.encounter_id = review.encounter_id AND exported.review_version = review.version
          AND exported.note_sha256 = review.note_sha256) AS export_id
FROM reviews AS review
JOIN encounters AS encounter USING (encounter_id)
JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
WHERE review.review_id = :review_id;

-- The code set with titles, what the model said, and who decided last. `proposed_code` is what a replaced code stands for.
-- name: list_review_page_codes
SELECT code.code, code.rank, code.origin, code.state, code.evidence_start, code.evidence_end, title.long_title AS title,
       CASE WHEN prediction.code = code.code THEN prediction.confidence END AS confidence,
       CASE WHEN prediction.code = code.code THEN prediction.decision END AS decision,
       prediction.code AS proposed_code, action.person, action.acted_at
FROM review_codes AS code
JOIN codes AS title USING (release_key, code)
LEFT JOIN predictions AS prediction USING (prediction_id)
LEFT JOIN review_actions AS action USING (action_id)
WHERE code.review_id = :review_id
ORDER BY code.rank, (code.state = 'removed') DESC, code.code;

-- name: list_review_findings
SELECT finding.rule, finding.action, finding.code, finding.related_code, finding.reason
FROM reviews AS review
JOIN findings AS finding USING (encounter_id, note_sha256, model_id, release_key)
WHERE review.review_id = :review_id
ORDER BY finding.rank;

-- name: list_review_drgs
SELECT drg.basis, drg.drg, drg.title, drg.grouper_version
FROM reviews AS review
JOIN drgs AS drg USING (encounter_id, note_sha256, model_id, release_key)
WHERE review.review_id = :review_id
ORDER BY drg.basis;

-- PATIENT TEXT: the note of a review, to somebody whose view is booked by the same statement.
-- name: view_note
WITH viewed AS (
    INSERT INTO note_views (encounter_id, note_sha256, person)
    SELECT encounter_id, note_sha256, :person FROM reviews WHERE review_id = :review_id
    RETURNING encounter_id, note_sha256
)
SELECT summary.note_text FROM viewed JOIN discharge_summaries AS summary USING (encounter_id, note_sha256);

-- PATIENT TEXT: to find words in it that somebody typed; shown to nobody.
-- name: fetch_review_note
SELECT summary.note_text
FROM reviews AS review JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
WHERE review.review_id = :review_id;
