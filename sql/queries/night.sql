-- The lease of a batch: new claims, and those of workers that stopped renewing theirs. Everybody takes notes in the same order.
-- name: claim_notes
INSERT INTO note_claims (encounter_id, note_sha256, model_id, release_key, worker, expires_at)
SELECT wanted.encounter_id, wanted.note_sha256, :model_id, :release_key, :worker, now() + make_interval(secs => :lease_seconds)
FROM unnest(CAST(:encounter_ids AS text[]), CAST(:note_sha256s AS text[])) AS wanted (encounter_id, note_sha256)
ORDER BY wanted.encounter_id
ON CONFLICT (encounter_id, note_sha256, model_id, release_key) DO UPDATE
SET worker = EXCLUDED.worker, expires_at = EXCLUDED.expires_at
WHERE note_claims.expires_at < now();

-- Looked at after the claim: a note that another worker finished a moment before is not among them.
-- name: fetch_claimed_notes
SELECT claim.encounter_id, claim.note_sha256, claim.release_key, note.note_text,
       encounter.sex, encounter.age_years, encounter.admission_date, encounter.discharge_date
FROM note_claims AS claim
JOIN discharge_summaries AS note USING (encounter_id, note_sha256)
JOIN encounters AS encounter USING (encounter_id)
JOIN coding_runs AS run ON run.coding_run_id = :coding_run_id
LEFT JOIN coded_notes AS done
    ON done.encounter_id = claim.encounter_id AND done.note_sha256 = claim.note_sha256
   AND done.model_id = claim.model_id AND done.release_key = claim.release_key
WHERE claim.worker = :worker
  AND (done.encounter_id IS NULL OR (done.status = 'failed' AND done.coded_at < run.started_at))
  AND NOT EXISTS (SELECT FROM quarantined_notes WHERE content_sha256 = claim.note_sha256 AND place = claim.encounter_id)
ORDER BY claim.encounter_id;

-- A row that somebody else is just taking over is left to them.
-- name: renew_claims
UPDATE note_claims
SET expires_at = now() + make_interval(secs => :lease_seconds)
FROM (SELECT ctid FROM note_claims WHERE worker = :worker FOR UPDATE SKIP LOCKED) AS mine
WHERE note_claims.ctid = mine.ctid AND note_claims.worker = :worker;

-- What is still ours comes back, and is ours no more. Locked in the order in which claims are made, so that no two workers wait for
-- each other.
-- name: release_claims
WITH mine AS (
    SELECT encounter_id, note_sha256, model_id, release_key FROM note_claims
    WHERE worker = :worker
    ORDER BY encounter_id
    FOR UPDATE
)
DELETE FROM note_claims
USING mine
WHERE (note_claims.encounter_id, note_claims.note_sha256, note_claims.model_id, note_claims.release_key)
    = (mine.encounter_id, mine.note_sha256, mine.model_id, mine.release_key)
RETURNING note_claims.encounter_id, note_claims.note_sha256;

-- What workers leave that were killed after others had done their notes, and claims that ran out.
-- name: forget_dead_claims
DELETE FROM note_claims
USING (
    SELECT ctid FROM note_claims AS claim
    WHERE claim.expires_at < now()
       OR EXISTS (
           SELECT FROM coded_notes AS done
           WHERE (done.encounter_id, done.note_sha256, done.model_id, done.release_key)
               = (claim.encounter_id, claim.note_sha256, claim.model_id, claim.release_key)
             AND done.status = 'coded'
       )
       OR EXISTS (SELECT FROM quarantined_notes WHERE content_sha256 = claim.note_sha256 AND place = claim.encounter_id)
    FOR UPDATE SKIP LOCKED
) AS dead
WHERE note_claims.ctid = dead.ctid;

-- name: insert_quarantined_note
INSERT INTO quarantined_notes (content_sha256, place, source, encounter_id, reason, coding_date, coding_run_id)
VALUES (:content_sha256, :place, :source, :encounter_id, :reason, :coding_date, :coding_run_id)
ON CONFLICT (content_sha256, place) DO NOTHING;

-- name: count_quarantined_by_run
SELECT reason, count(*) AS notes
FROM quarantined_notes
WHERE coding_run_id = :coding_run_id
GROUP BY reason
ORDER BY reason;

-- name: find_loaded_file
SELECT content_sha256 FROM loaded_files WHERE content_sha256 = :content_sha256;

-- name: record_loaded_file
INSERT INTO loaded_files (content_sha256, source, coding_date, encounter_count, quarantined_count)
VALUES (:content_sha256, :source, :coding_date, :encounter_count, :quarantined_count)
ON CONFLICT (content_sha256) DO NOTHING;
