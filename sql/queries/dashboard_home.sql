-- The newest run that covers dates, with its figures where it was measured. `coded` is counted only while it runs.
-- name: fetch_newest_night
SELECT run.coding_run_id, run.from_date, run.to_date, run.model_id, run.status, run.encounter_count, run.started_at, run.finished_at,
       now() - run.started_at AS age, figures.notes, figures.codes, figures.auto_share, figures.review_share, figures.failed_share,
       figures.nights_compared, coalesce(jsonb_array_length(figures.out_of_band), 0) AS out_of_band_count,
       CASE run.status WHEN 'running' THEN (SELECT count(*) FROM coded_notes WHERE coding_run_id = run.coding_run_id) END AS coded
FROM coding_runs AS run
LEFT JOIN night_statistics AS figures USING (coding_run_id)
WHERE run.recode_release_key IS NULL
ORDER BY run.started_at DESC, run.coding_run_id DESC
LIMIT 1;

-- By the table of promotions, which follows the pointer.
-- name: fetch_model_in_service
SELECT promotion.model_id, model.release_key, model.recipe, model.stage, promotion.kind, promotion.promoted_by, promotion.promoted_at,
       promotion.replaced_model_id, promotion.verdict_id, verdict.decision
FROM promotions AS promotion
JOIN models AS model ON model.model_id = promotion.model_id
LEFT JOIN verdicts AS verdict ON verdict.verdict_id = promotion.verdict_id
ORDER BY promotion.promotion_id DESC
LIMIT 1;

-- The newest loaded release, and since when the newest of those is in effect that are.
-- name: fetch_newest_release
SELECT release_key, effective_from,
       (SELECT max(effective_from) FROM releases WHERE effective_from <= :today AND withdrawn_at IS NULL) AS in_effect_from
FROM releases WHERE withdrawn_at IS NULL ORDER BY effective_from DESC LIMIT 1;

-- The queue is counted up to a number and not beyond: its length then says no more, and costs more.
-- name: count_open_reviews
SELECT (SELECT count(*) FROM (SELECT FROM reviews WHERE status IN ('waiting', 'claimed') LIMIT :most) AS counted) AS open,
       count(*) FILTER (WHERE claimed_by = :person) AS mine,
       count(*) FILTER (WHERE claimed_by <> :person) AS of_others
FROM reviews
WHERE status = 'claimed' AND claimed_until > now();

-- name: list_my_reviews
SELECT review_id, encounter_id, claimed_until
FROM reviews
WHERE status = 'claimed' AND claimed_by = :person AND claimed_until > now()
ORDER BY claimed_until
LIMIT :limit;

-- Models that the gate would promote and that nobody answered for, unless one went into service since.
-- name: list_waiting_verdicts
SELECT verdict.verdict_id, verdict.model_id, model.release_key, verdict.created_at
FROM verdicts AS verdict
JOIN models AS model USING (model_id)
WHERE verdict.decision = 'PROMOTE'
  AND NOT EXISTS (SELECT FROM approvals WHERE approvals.verdict_id = verdict.verdict_id)
  AND NOT EXISTS (
      SELECT FROM promotions
      WHERE promotions.verdict_id = verdict.verdict_id OR promotions.promoted_at > verdict.created_at
  )
ORDER BY verdict.created_at;
