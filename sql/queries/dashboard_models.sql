-- The figures of training stand in a model's manifest; the periods in service are the history of the pointer, and the newest goes on.
-- name: list_models
WITH page AS (
    SELECT model_id, release_key, recipe, stage, dataset_id, manifest -> 'figures' AS figures, created_at
    FROM models
    WHERE CAST(:after_created_at AS timestamptz) IS NULL
       OR (created_at, model_id) < (CAST(:after_created_at AS timestamptz), :after_model_id)
    ORDER BY created_at DESC, model_id DESC
    LIMIT :limit
), served AS (
    SELECT promotion_id, model_id, promoted_at AS since, lead(promoted_at) OVER (ORDER BY promotion_id) AS until, promoted_by
    FROM promotions
)
SELECT page.*, verdict.decision, service.since, service.until, service.promoted_by
FROM page
LEFT JOIN LATERAL (
    SELECT decision FROM verdicts WHERE model_id = page.model_id ORDER BY created_at DESC, verdict_id LIMIT 1
) AS verdict ON true
LEFT JOIN LATERAL (
    SELECT since, until, promoted_by FROM served WHERE model_id = page.model_id ORDER BY promotion_id DESC LIMIT 1
) AS service ON true
ORDER BY page.created_at DESC, page.model_id DESC;

-- The model, and what it was made from.
-- name: fetch_model_page
SELECT model.model_id, model.release_key, model.dataset_id, model.recipe, model.stage, model.uri, model.manifest, model.created_at,
       dataset.release_key AS dataset_release_key, dataset.manifest AS dataset_manifest, dataset.created_at AS dataset_created_at
FROM models AS model JOIN datasets AS dataset USING (dataset_id)
WHERE model_id = :model_id;

-- From the first model that this one goes back to, to the models trained from it. Generation 0 is the model itself.
-- name: list_lineage
WITH RECURSIVE ancestors AS (
    SELECT model_id, stage, release_key, dataset_id, created_at, parent_model_id, 0 AS generation FROM models WHERE model_id = :model_id
    UNION
    SELECT parent.model_id, parent.stage, parent.release_key, parent.dataset_id, parent.created_at, parent.parent_model_id,
           ancestors.generation - 1
    FROM ancestors JOIN models AS parent ON parent.model_id = ancestors.parent_model_id
    WHERE ancestors.generation > -12
), kin AS (
    SELECT model_id, stage, release_key, dataset_id, created_at, generation FROM ancestors
    UNION ALL
    SELECT model_id, stage, release_key, dataset_id, created_at, 1 FROM models WHERE parent_model_id = :model_id
)
SELECT kin.*, (SELECT decision FROM verdicts WHERE verdicts.model_id = kin.model_id ORDER BY created_at DESC LIMIT 1) AS decision
FROM kin ORDER BY generation, created_at;

-- At most about 200 points of each curve, the last one among them.
-- name: list_training_curves
SELECT model_id, step, loss, tokens_seen
FROM (
    SELECT model_id, step, loss, tokens_seen, row_number() OVER curve AS place,
           count(*) OVER (PARTITION BY model_id) AS points
    FROM training_metrics WHERE model_id = ANY (:model_ids)
    WINDOW curve AS (PARTITION BY model_id ORDER BY step)
) AS numbered
WHERE place % greatest(1, points / 200) = 0 OR place = points
ORDER BY model_id, step;

-- name: list_model_scorecards
SELECT evaluation_id, dataset_id, suites_sha256, uri, created_at
FROM scorecards WHERE model_id = :model_id ORDER BY created_at DESC, evaluation_id LIMIT 20;

-- name: fetch_scorecard
SELECT CAST(scorecard AS text) AS scorecard FROM scorecards WHERE evaluation_id = :evaluation_id;

-- Each verdict once for each answer of a person, and once where nobody answered.
-- name: list_model_verdicts
SELECT verdict_id, evaluation_id, against_model_id, decision, reasons, verdicts.created_at,
       approval.approval_id, approval.approved, approval.answered_by, approval.comment, approval.answered_at
FROM verdicts LEFT JOIN approvals AS approval USING (verdict_id)
WHERE model_id = :model_id
ORDER BY verdicts.created_at DESC, verdict_id, approval.approval_id DESC;

-- Moves of the pointer to this model or away from it.
-- name: list_model_promotions
SELECT promotion_id, kind, model_id, replaced_model_id, verdict_id, promoted_by, promoted_at, until, reason
FROM (SELECT *, lead(promoted_at) OVER (ORDER BY promotion_id) AS until FROM promotions) AS moves
WHERE model_id = :model_id OR replaced_model_id = :model_id
ORDER BY promotion_id DESC;

-- Models that another one can be put beside: those with a scorecard, the newest first.
-- name: list_judged_models
SELECT model_id, release_key FROM models
WHERE EXISTS (SELECT FROM scorecards WHERE scorecards.model_id = models.model_id)
ORDER BY created_at DESC, model_id LIMIT 100;

-- name: list_long_titles
SELECT code, long_title AS title FROM codes WHERE release_key = :release_key AND code = ANY (:codes);
