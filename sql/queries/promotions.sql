-- name: fetch_newest_approval
SELECT approved, answered_by, comment FROM approvals WHERE verdict_id = :verdict_id ORDER BY approval_id DESC LIMIT 1;

-- name: record_approval
INSERT INTO approvals (verdict_id, approved, answered_by, comment) VALUES (:verdict_id, :approved, :answered_by, :comment);

-- name: fetch_newest_promotion_id
SELECT coalesce(max(promotion_id), 0) AS promotion_id FROM promotions;

-- name: record_promotion
INSERT INTO promotions (promotion_id, model_id, replaced_model_id, kind, verdict_id, promoted_by)
SELECT
    :promotion_id, :model_id,
    (SELECT model_id FROM models WHERE model_id = :replaced_model_id),  -- a rebuilt database may not know it
    :kind, verdict_id, :promoted_by
FROM verdicts WHERE verdict_id = :verdict_id
ON CONFLICT (promotion_id) DO NOTHING;

-- name: list_promotions
SELECT promotion_id, kind, model_id, replaced_model_id, verdict_id, promoted_by, promoted_at FROM promotions ORDER BY promotion_id;

-- name: fetch_promoted_evidence
SELECT promotions.verdict_id, verdicts.evaluation_id, models.release_key
FROM promotions JOIN verdicts USING (verdict_id) JOIN models ON models.model_id = promotions.model_id
WHERE promotions.model_id = :model_id AND promotions.kind = 'promote'
ORDER BY promotion_id DESC LIMIT 1;
