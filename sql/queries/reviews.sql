-- A newer coding of an encounter takes the place of what is open: always for another text; for the same text unless a person holds it.
-- name: supersede_reviews
WITH newest AS (
    SELECT DISTINCT ON (note.encounter_id) note.encounter_id, note.note_sha256, note.model_id, note.release_key
    FROM coded_notes AS note
    JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
    WHERE note.encounter_id IN (SELECT encounter_id FROM coded_notes WHERE coding_run_id = :coding_run_id)
      AND note.status = 'coded'
    ORDER BY note.encounter_id, summary.version DESC, note.coded_at DESC, note.model_id DESC
), outdated AS (
    SELECT review.review_id, review.status AS old_status
    FROM newest
    JOIN reviews AS review USING (encounter_id)
    WHERE review.status IN ('waiting', 'claimed')
      AND (review.note_sha256, review.model_id, review.release_key)
          IS DISTINCT FROM (newest.note_sha256, newest.model_id, newest.release_key)
      AND (review.note_sha256 <> newest.note_sha256 OR review.claimed_until IS NULL OR review.claimed_until <= now())
    FOR UPDATE OF review
), closed AS (
    UPDATE reviews
    SET status = 'superseded', version = reviews.version + 1, claimed_by = NULL, claimed_until = NULL
    FROM outdated
    WHERE reviews.review_id = outdated.review_id
    RETURNING reviews.review_id, reviews.version, outdated.old_status
)
INSERT INTO review_actions (review_id, version, person, action, before, after)
SELECT review_id, version, 'the night', 'supersede',
       jsonb_build_object('status', old_status), jsonb_build_object('status', 'superseded')
FROM closed;

-- The newest codings of a run's encounters, of their current texts, that a person has to look at and that nobody looks at yet.
-- The codes of each note are looked up by key, one note after the other, whatever the planner believes of keys of four columns.
-- name: list_notes_to_review
WITH newest AS (
    SELECT DISTINCT ON (note.encounter_id)
           note.encounter_id, note.note_sha256, note.model_id, note.release_key, note.coding_run_id, summary.version
    FROM coded_notes AS note
    JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
    WHERE note.encounter_id IN (SELECT encounter_id FROM coded_notes WHERE coding_run_id = :coding_run_id)
      AND note.status = 'coded'
    ORDER BY note.encounter_id, summary.version DESC, note.coded_at DESC, note.model_id DESC
)
SELECT newest.encounter_id, newest.note_sha256, newest.model_id, newest.release_key,
       coalesce(found.confidences, '{}') AS confidences,
       coalesce(found.codes, '{}') AS codes,
       paid.all_drg IS DISTINCT FROM paid.auto_drg AS is_drg_at_stake,
       EXISTS (
           SELECT FROM findings AS finding
           WHERE (finding.encounter_id, finding.note_sha256, finding.model_id, finding.release_key)
               = (newest.encounter_id, newest.note_sha256, newest.model_id, newest.release_key)
             AND finding.action = 'flagged'
             AND (starts_with(finding.rule, 'edit_') OR finding.rule = 'excludes1')   -- payers' edits, and codes that cannot both stand
       ) AS is_flagged
FROM newest
CROSS JOIN LATERAL (
    SELECT count(*) AS proposed,
           array_agg(prediction.confidence ORDER BY prediction.rank) FILTER (WHERE prediction.decision = 'review') AS confidences,
           array_agg(prediction.code ORDER BY prediction.rank) FILTER (WHERE prediction.decision = 'review') AS codes
    FROM predictions AS prediction
    WHERE (prediction.encounter_id, prediction.note_sha256, prediction.model_id, prediction.release_key)
        = (newest.encounter_id, newest.note_sha256, newest.model_id, newest.release_key)
) AS found
CROSS JOIN LATERAL (
    SELECT max(drg) FILTER (WHERE basis = 'all') AS all_drg, max(drg) FILTER (WHERE basis = 'auto') AS auto_drg
    FROM drgs
    WHERE (drgs.encounter_id, drgs.note_sha256, drgs.model_id, drgs.release_key)
        = (newest.encounter_id, newest.note_sha256, newest.model_id, newest.release_key)
) AS paid
WHERE newest.coding_run_id = :coding_run_id
  AND newest.version = (SELECT max(version) FROM discharge_summaries WHERE encounter_id = newest.encounter_id)
  AND (found.proposed = 0 OR found.confidences IS NOT NULL
       OR EXISTS (  -- whoever decided under another release has the last word under this one too
           SELECT FROM reviews
           WHERE reviews.encounter_id = newest.encounter_id AND reviews.note_sha256 = newest.note_sha256
             AND reviews.status = 'finished' AND reviews.release_key <> newest.release_key
       ))
  AND NOT EXISTS (
      SELECT FROM reviews AS review
      WHERE review.encounter_id = newest.encounter_id
        AND (review.status IN ('waiting', 'claimed')
             OR (review.status = 'finished'
                 AND (review.note_sha256, review.release_key) = (newest.note_sha256, newest.release_key))
             OR (review.note_sha256, review.model_id, review.release_key)
                = (newest.note_sha256, newest.model_id, newest.release_key))
  )
ORDER BY newest.encounter_id;

-- How often each code was accepted here: by a person, or by the model where nobody had to look.
-- name: count_accepted_codes
SELECT code, sum(times)::integer AS times
FROM (
    SELECT code, count(*) AS times FROM predictions WHERE decision = 'auto' GROUP BY code
    UNION ALL
    SELECT code.code, count(*)
    FROM reviews AS review JOIN review_codes AS code USING (review_id)
    LEFT JOIN predictions AS prediction ON prediction.prediction_id = code.prediction_id AND prediction.code = code.code
    WHERE review.status = 'finished' AND code.state = 'accepted' AND prediction.decision IS DISTINCT FROM 'auto'
    GROUP BY code.code
) AS counted
GROUP BY code;

-- Many at a time: row by row, planning and the checks of keys cost more than the rows.
-- name: open_reviews
WITH opened AS (
    INSERT INTO reviews (encounter_id, note_sha256, model_id, release_key, priority, uncertainty, money, rarity)
    SELECT * FROM unnest(
        CAST(:encounter_id AS text[]), CAST(:note_sha256 AS text[]), CAST(:model_id AS text[]), CAST(:release_key AS text[]),
        CAST(:priority AS float[]), CAST(:uncertainty AS float[]), CAST(:money AS float[]), CAST(:rarity AS float[])
    )
    ON CONFLICT DO NOTHING
    RETURNING review_id, encounter_id, note_sha256, model_id, release_key
), proposed AS (
    INSERT INTO review_codes (
        review_id, code, release_key, rank, origin, state, prediction_id, evidence_start, evidence_end
    )
    SELECT opened.review_id, prediction.code, opened.release_key, prediction.rank, 'predicted',
           CASE prediction.decision WHEN 'auto' THEN 'accepted' ELSE 'open' END,
           prediction.prediction_id, prediction.evidence_start, prediction.evidence_end
    FROM opened
    JOIN predictions AS prediction USING (encounter_id, note_sha256, model_id, release_key)
)
SELECT count(*) AS opened FROM opened;

-- The planner learns that the tables are not empty any more: the checks of keys would go on to read them whole.
-- name: analyze_reviews
ANALYZE reviews, review_codes;

-- One page, the most urgent first. The next page begins after the last row of this one.
-- name: list_review_queue
SELECT review.review_id, review.encounter_id, encounter.discharge_date, review.release_key, review.model_id, review.version,
       review.priority, review.uncertainty, review.money, review.rarity, review.opened_at,
       CASE WHEN review.claimed_until > now() THEN review.claimed_by END AS held_by,
       CASE WHEN review.claimed_until > now() THEN review.claimed_until END AS held_until
FROM reviews AS review
JOIN encounters AS encounter USING (encounter_id)
WHERE review.status IN ('waiting', 'claimed')
  AND (review.priority, review.review_id) < (:after_priority, :after_id)
  AND (NOT :only_free OR review.status = 'waiting' OR review.claimed_until <= now())
ORDER BY review.priority DESC, review.review_id DESC
LIMIT :page_size;

-- name: fetch_next_review
SELECT review_id FROM reviews
WHERE status IN ('waiting', 'claimed') AND (status = 'waiting' OR claimed_until <= now())
ORDER BY priority DESC, review_id DESC
LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: fetch_review
SELECT review.review_id, review.encounter_id, review.note_sha256, review.model_id, review.release_key, review.status, review.version,
       review.priority, review.uncertainty, review.money, review.rarity,
       review.claimed_by, review.claimed_until, review.claimed_until > now() AS is_live, review.finished_by, review.finished_at,
       length(summary.note_text) AS note_length,
       (SELECT release_key FROM release_validity WHERE encounter.discharge_date BETWEEN effective_from AND coalesce(effective_to, 'infinity'))
           AS valid_release_key
FROM reviews AS review
JOIN encounters AS encounter USING (encounter_id)
JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
WHERE review.review_id = :review_id;

-- Whoever comes second waits here, and then sees what the first one did.
-- name: lock_review
SELECT review_id FROM reviews WHERE review_id = :review_id FOR UPDATE;

-- name: list_review_codes
SELECT code, rank, origin, state, prediction_id, evidence_start, evidence_end
FROM review_codes WHERE review_id = :review_id ORDER BY rank, code;

-- name: find_billable_code
SELECT is_billable FROM codes WHERE release_key = :release_key AND code = :code;

-- name: update_review
UPDATE reviews
SET status = :status,
    version = version + 1,
    claimed_by = CASE WHEN :status = 'claimed' THEN :person END,
    claimed_until = CASE WHEN :status = 'claimed' THEN now() + make_interval(secs => :lease_seconds) END,
    finished_by = CASE WHEN :status = 'finished' THEN :person END,
    finished_at = CASE WHEN :status = 'finished' THEN now() END
WHERE review_id = :review_id;

-- name: extend_claim
UPDATE reviews SET claimed_until = greatest(claimed_until, now() + make_interval(secs => :lease_seconds))
WHERE review_id = :review_id;

-- name: record_review_action
INSERT INTO review_actions (review_id, version, person, action, before, after, undoes)
SELECT review_id, version, :person, :action, CAST(:before AS jsonb), CAST(:after AS jsonb), :undoes
FROM reviews WHERE review_id = :review_id
RETURNING action_id;

-- name: delete_review_codes
DELETE FROM review_codes WHERE review_id = :review_id AND code = ANY (:codes);

-- name: insert_review_code
INSERT INTO review_codes (
    review_id, code, release_key, rank, origin, state, prediction_id, evidence_start, evidence_end, action_id
)
VALUES (
    :review_id, :code, :release_key, :rank, :origin, :state, :prediction_id, :evidence_start, :evidence_end, :action_id
);

-- The newest decision on codes that was not taken back.
-- name: fetch_undoable_action
SELECT action_id, person, action, before, after
FROM review_actions AS action
WHERE review_id = :review_id
  AND action IN ('accept', 'replace', 'add', 'remove')
  AND NOT EXISTS (SELECT FROM review_actions WHERE undoes = action.action_id)
ORDER BY action_id DESC LIMIT 1;

-- name: list_review_actions
SELECT action_id, version, person, action, before, after, undoes, acted_at
FROM review_actions WHERE review_id = :review_id ORDER BY version;

-- name: find_newer_review
SELECT newer.review_id
FROM reviews AS review
JOIN reviews AS newer USING (encounter_id)
WHERE review.review_id = :review_id AND newer.review_id > review.review_id AND newer.status <> 'superseded'
LIMIT 1;
