-- name: create_incoming_encounters
CREATE TEMPORARY TABLE incoming_encounters (
    encounter_id text NOT NULL,
    patient_id text,
    admission_date date,
    discharge_date date NOT NULL,
    sex text,
    age_years integer,
    source text NOT NULL,
    note_sha256 text NOT NULL,
    note_text text NOT NULL,
    codes text[]                               -- NULL: the source says nothing about codes
) ON COMMIT DROP;

-- name: upsert_encounters
INSERT INTO encounters (encounter_id, patient_id, admission_date, discharge_date, sex, age_years, source)
SELECT encounter_id, patient_id, admission_date, discharge_date, sex, age_years, source
FROM incoming_encounters
ORDER BY encounter_id
ON CONFLICT (encounter_id) DO UPDATE
SET patient_id = EXCLUDED.patient_id,
    admission_date = EXCLUDED.admission_date,
    discharge_date = EXCLUDED.discharge_date,
    sex = EXCLUDED.sex,
    age_years = EXCLUDED.age_years
WHERE (encounters.patient_id, encounters.admission_date, encounters.discharge_date, encounters.sex, encounters.age_years)
      IS DISTINCT FROM
      (EXCLUDED.patient_id, EXCLUDED.admission_date, EXCLUDED.discharge_date, EXCLUDED.sex, EXCLUDED.age_years);

-- A text that is not the current one becomes the next version, also when it is an older one that came back.
-- name: upsert_discharge_summaries
INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version)
SELECT incoming.encounter_id, incoming.note_sha256, incoming.note_text, coalesce(latest.version, 0) + 1
FROM incoming_encounters AS incoming
LEFT JOIN LATERAL (
    SELECT version, note_sha256 FROM discharge_summaries
    WHERE encounter_id = incoming.encounter_id
    ORDER BY version DESC LIMIT 1
) AS latest ON true
WHERE latest.note_sha256 IS DISTINCT FROM incoming.note_sha256
ON CONFLICT (encounter_id, note_sha256) DO UPDATE
SET version = EXCLUDED.version, received_at = now();

-- name: delete_stale_gold_codes
DELETE FROM gold_codes
USING incoming_encounters AS incoming
WHERE incoming.encounter_id = gold_codes.encounter_id
  AND incoming.codes IS NOT NULL
  AND NOT gold_codes.code = ANY (incoming.codes);

-- name: upsert_gold_codes
INSERT INTO gold_codes (encounter_id, code, rank)
SELECT incoming.encounter_id, listed.code, listed.rank
FROM incoming_encounters AS incoming, unnest(incoming.codes) WITH ORDINALITY AS listed (code, rank)
ON CONFLICT (encounter_id, code) DO UPDATE
SET rank = EXCLUDED.rank
WHERE gold_codes.rank <> EXCLUDED.rank;

-- name: create_coding_run
INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, recode_release_key, status, encounter_count)
SELECT :coding_run_id, :from_date, :to_date, :model_id, :recode_release_key, 'running', count(*)
FROM encounters
WHERE discharge_date BETWEEN :from_date AND :to_date
  AND (CAST(:recode_release_key AS text) IS NULL
       OR encounter_id IN (SELECT encounter_id FROM outdated_codings WHERE release_key = :recode_release_key))
ON CONFLICT (coding_run_id) DO NOTHING;

-- name: reopen_coding_run
UPDATE coding_runs
SET status = 'running',
    finished_at = NULL,
    encounter_count = CASE WHEN recode_release_key IS NULL
        THEN (SELECT count(*) FROM encounters WHERE discharge_date BETWEEN coding_runs.from_date AND coding_runs.to_date)
        ELSE encounter_count END
WHERE coding_run_id = :coding_run_id;

-- From the day a release takes effect to the last discharge; none where it is not loaded.
-- name: find_recode_dates
SELECT effective_from AS from_date,
       greatest(effective_from, (SELECT max(discharge_date) FROM encounters)) AS to_date
FROM releases WHERE release_key = :release_key;

-- Encounters may have come since the run was planned.
-- name: extend_recode_run
UPDATE coding_runs SET to_date = :to_date
WHERE coding_run_id = :coding_run_id AND recode_release_key IS NOT NULL AND to_date < :to_date;

-- name: fetch_coding_run
SELECT coding_run_id, from_date, to_date, model_id, recode_release_key, status, encounter_count, started_at, finished_at
FROM coding_runs
WHERE coding_run_id = :coding_run_id;

-- name: close_coding_run
UPDATE coding_runs
SET status = :status, finished_at = now()
WHERE coding_run_id = :coding_run_id AND (status = 'running' OR (status = 'failed' AND :status = 'finished'));

-- name: find_registered_model
SELECT model_id FROM models WHERE model_id = :model_id;

-- name: list_dates_without_release
SELECT DISTINCT encounter.discharge_date
FROM coding_runs AS run
JOIN encounters AS encounter ON encounter.discharge_date BETWEEN run.from_date AND run.to_date
LEFT JOIN release_validity AS release
    ON encounter.discharge_date BETWEEN release.effective_from AND coalesce(release.effective_to, 'infinity')
WHERE run.coding_run_id = :coding_run_id AND release.release_key IS NULL
ORDER BY encounter.discharge_date;

-- name: record_uncoded_encounters
INSERT INTO uncoded_encounters (coding_run_id, encounter_id, reason, message)
SELECT run.coding_run_id,
       encounter.encounter_id,
       CASE WHEN note.encounter_id IS NULL THEN 'no_discharge_summary' ELSE 'no_release_on_discharge_date' END,
       CASE WHEN note.encounter_id IS NULL THEN 'no discharge summary has arrived: load it, then code this discharge date again'
            ELSE coalesce(said.message, '') END
FROM coding_runs AS run
JOIN encounters AS encounter ON encounter.discharge_date BETWEEN run.from_date AND run.to_date
LEFT JOIN LATERAL (SELECT encounter_id FROM discharge_summaries WHERE encounter_id = encounter.encounter_id LIMIT 1) AS note ON true
LEFT JOIN release_validity AS release ON encounter.discharge_date BETWEEN release.effective_from AND coalesce(release.effective_to, 'infinity')
LEFT JOIN unnest(CAST(:dates AS date[]), CAST(:messages AS text[])) AS said (day, message) ON said.day = encounter.discharge_date
WHERE run.coding_run_id = :coding_run_id
  AND (note.encounter_id IS NULL OR release.release_key IS NULL)
  AND (run.recode_release_key IS NULL OR EXISTS (
      SELECT FROM outdated_codings AS outdated
      WHERE outdated.release_key = run.recode_release_key AND outdated.encounter_id = encounter.encounter_id
  ))
ON CONFLICT (coding_run_id, encounter_id) DO UPDATE SET reason = EXCLUDED.reason, message = EXCLUDED.message
WHERE (uncoded_encounters.reason, uncoded_encounters.message) <> (EXCLUDED.reason, EXCLUDED.message);

-- What stood in the way may be gone by the next attempt.
-- name: forget_coded_encounters
DELETE FROM uncoded_encounters
USING encounters AS encounter, release_validity AS release
WHERE uncoded_encounters.coding_run_id = :coding_run_id
  AND encounter.encounter_id = uncoded_encounters.encounter_id
  AND EXISTS (SELECT FROM discharge_summaries WHERE discharge_summaries.encounter_id = encounter.encounter_id)
  AND encounter.discharge_date BETWEEN release.effective_from AND coalesce(release.effective_to, 'infinity');

-- The current notes of a run that its model has not coded under the release of their discharge date. A note that failed before
-- the run began is tried again; one in quarantine is not. A run that recodes takes only what an older release coded. Notes of one hash shard, or of all when shard is NULL.
-- name: list_pending_notes
SELECT note.encounter_id, note.note_sha256, release.release_key, shard.number AS shard
FROM coding_runs AS run
JOIN encounters AS encounter ON encounter.discharge_date BETWEEN run.from_date AND run.to_date
CROSS JOIN LATERAL (
    SELECT ('x' || substr(md5(encounter.encounter_id), 1, 7))::bit(28)::integer % :shards AS number
) AS shard
JOIN LATERAL (
    SELECT encounter_id, note_sha256 FROM discharge_summaries
    WHERE encounter_id = encounter.encounter_id
    ORDER BY version DESC LIMIT 1
) AS note ON true
JOIN release_validity AS release ON encounter.discharge_date BETWEEN release.effective_from AND coalesce(release.effective_to, 'infinity')
LEFT JOIN coded_notes AS done
    ON done.encounter_id = note.encounter_id AND done.note_sha256 = note.note_sha256
   AND done.model_id = run.model_id AND done.release_key = release.release_key
WHERE run.coding_run_id = :coding_run_id
  AND (CAST(:shard AS integer) IS NULL OR shard.number = :shard)
  AND (run.recode_release_key IS NULL OR EXISTS (
      SELECT FROM outdated_codings AS outdated
      WHERE outdated.release_key = run.recode_release_key AND outdated.encounter_id = encounter.encounter_id
  ))
  AND (done.encounter_id IS NULL OR (done.status = 'failed' AND done.coded_at < run.started_at))
  AND NOT EXISTS (SELECT FROM quarantined_notes WHERE content_sha256 = note.note_sha256 AND place = note.encounter_id)
ORDER BY release.release_key, note.encounter_id;

-- One row comes back, or none where the note is coded already: the last word on exactly once.
-- name: insert_coded_note
INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status, failure)
VALUES (:encounter_id, :note_sha256, :model_id, :release_key, :coding_run_id, :status, :failure)
ON CONFLICT (encounter_id, note_sha256, model_id, release_key) DO UPDATE
SET coding_run_id = EXCLUDED.coding_run_id, status = EXCLUDED.status, failure = EXCLUDED.failure, coded_at = now()
WHERE coded_notes.status = 'failed'
  AND coded_notes.coded_at < (SELECT started_at FROM coding_runs WHERE coding_run_id = EXCLUDED.coding_run_id)
RETURNING encounter_id;

-- name: insert_predictions
INSERT INTO predictions (
    encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, evidence_start, evidence_end
)
VALUES (
    :encounter_id, :note_sha256, :model_id, :release_key, :code, :rank, :confidence, :decision, :evidence_start, :evidence_end
);

-- name: insert_findings
INSERT INTO findings (
    encounter_id, note_sha256, model_id, release_key, rank, rule, action, code, related_code, reason, evidence_start, evidence_end
)
VALUES (
    :encounter_id, :note_sha256, :model_id, :release_key, :rank, :rule, :action, :code, :related_code, :reason,
    :evidence_start, :evidence_end
);

-- name: insert_drgs
INSERT INTO drgs (encounter_id, note_sha256, model_id, release_key, basis, grouper_version, drg, category, title)
VALUES (:encounter_id, :note_sha256, :model_id, :release_key, :basis, :grouper_version, :drg, :category, :title);

-- name: count_coding_run
SELECT run.encounter_count AS encounters,
       count(note.encounter_id) FILTER (WHERE note.status = 'coded') AS coded,
       count(note.encounter_id) FILTER (WHERE note.status = 'failed') AS failed,
       (SELECT count(*) FROM uncoded_encounters WHERE coding_run_id = run.coding_run_id) AS uncoded,
       (SELECT count(*) FROM quarantined_notes WHERE coding_run_id = run.coding_run_id) AS quarantined,
       coalesce(sum(found.predictions), 0)::integer AS predictions,
       coalesce(sum(found.auto), 0)::integer AS auto,
       coalesce(sum(found.review), 0)::integer AS review
FROM coding_runs AS run
LEFT JOIN coded_notes AS note ON note.coding_run_id = run.coding_run_id
LEFT JOIN LATERAL (
    SELECT count(*) AS predictions,
           count(*) FILTER (WHERE decision = 'auto') AS auto,
           count(*) FILTER (WHERE decision = 'review') AS review
    FROM predictions
    WHERE (encounter_id, note_sha256, model_id, release_key)
        = (note.encounter_id, note.note_sha256, note.model_id, note.release_key)
) AS found ON true
WHERE run.coding_run_id = :coding_run_id
GROUP BY run.coding_run_id;

-- name: list_coded_encounters
SELECT note.encounter_id, note.note_sha256, note.release_key, note.status, note.failure, encounter.discharge_date, note.coded_at
FROM coded_notes AS note
JOIN encounters AS encounter USING (encounter_id)
WHERE note.coding_run_id = :coding_run_id
ORDER BY note.encounter_id;

-- name: fetch_coded_note
SELECT note.encounter_id, note.note_sha256, note.model_id, note.release_key, summary.note_text, encounter.discharge_date
FROM coded_notes AS note
JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
JOIN encounters AS encounter USING (encounter_id)
WHERE note.coding_run_id = :coding_run_id AND note.encounter_id = :encounter_id AND note.status = 'coded';

-- name: list_note_predictions
SELECT prediction.code, code.long_title AS description, prediction.confidence, prediction.decision,
       prediction.evidence_start AS start, prediction.evidence_end AS "end"
FROM predictions AS prediction
JOIN codes AS code USING (release_key, code)
WHERE prediction.encounter_id = :encounter_id
  AND prediction.note_sha256 = :note_sha256
  AND prediction.model_id = :model_id
  AND prediction.release_key = :release_key
ORDER BY prediction.rank;

-- name: list_note_findings
SELECT rule, action, code, related_code, reason, evidence_start AS start, evidence_end AS "end"
FROM findings
WHERE encounter_id = :encounter_id
  AND note_sha256 = :note_sha256
  AND model_id = :model_id
  AND release_key = :release_key
ORDER BY rank;

-- name: list_note_drgs
SELECT basis, grouper_version, drg, category, title
FROM drgs
WHERE encounter_id = :encounter_id
  AND note_sha256 = :note_sha256
  AND model_id = :model_id
  AND release_key = :release_key;

-- Against the codes of human coders, where a source had them.
-- name: measure_coding_run
SELECT count(*) FILTER (WHERE gold.code IS NOT NULL AND predicted.code IS NOT NULL) AS agreed,
       count(predicted.code) AS predicted,
       count(gold.code) AS gold
FROM (
    SELECT prediction.encounter_id, prediction.code
    FROM coded_notes AS note
    JOIN predictions AS prediction USING (encounter_id, note_sha256, model_id, release_key)
    WHERE note.coding_run_id = :coding_run_id
      AND EXISTS (SELECT FROM gold_codes WHERE gold_codes.encounter_id = note.encounter_id)
) AS predicted
FULL JOIN (
    SELECT gold_codes.encounter_id, gold_codes.code
    FROM coded_notes AS note
    JOIN gold_codes USING (encounter_id)
    WHERE note.coding_run_id = :coding_run_id AND note.status = 'coded'
) AS gold USING (encounter_id, code);

-- The newest text of encounters that people coded: in a finished review of that text, else as the source says.
-- name: list_coded_notes
WITH newest AS (
    SELECT DISTINCT ON (encounter_id) encounter_id, note_sha256, note_text, received_at
    FROM discharge_summaries
    ORDER BY encounter_id, version DESC
), finished AS (
    SELECT DISTINCT ON (encounter_id, note_sha256) review_id, encounter_id, note_sha256
    FROM reviews
    WHERE status = 'finished'
    ORDER BY encounter_id, note_sha256, finished_at DESC
), reviewed AS (
    SELECT finished.encounter_id, finished.note_sha256, array_agg(code.code ORDER BY code.rank, code.code) AS codes
    FROM finished JOIN review_codes AS code USING (review_id)
    WHERE code.state = 'accepted'
    GROUP BY finished.encounter_id, finished.note_sha256
), given AS (
    SELECT encounter_id, array_agg(code ORDER BY rank, code) AS codes FROM gold_codes GROUP BY encounter_id
)
SELECT encounter_id, encounter.source, coalesce(encounter.patient_id, encounter_id) AS patient, newest.note_text,
       coalesce(reviewed.codes, given.codes) AS codes
FROM newest
JOIN encounters AS encounter USING (encounter_id)
LEFT JOIN reviewed USING (encounter_id, note_sha256)
LEFT JOIN given USING (encounter_id)
WHERE coalesce(reviewed.codes, given.codes) IS NOT NULL
ORDER BY newest.received_at DESC, encounter_id
LIMIT :most_notes;
