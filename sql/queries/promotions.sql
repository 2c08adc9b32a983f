-- name: fetch_newest_approval
SELECT approved, answered_by, comment FROM approvals WHERE verdict_id = :verdict_id ORDER BY approval_id DESC LIMIT 1;

-- name: record_approval
INSERT INTO approvals (verdict_id, approved, answered_by, comment, answered_at)
VALUES (:verdict_id, :approved, :answered_by, :comment, coalesce(CAST(:answered_at AS timestamptz), now()));

-- name: fetch_newest_promotion_id
SELECT coalesce(max(promotion_id), 0) AS promotion_id FROM promotions;

-- name: record_promotion
INSERT INTO promotions (promotion_id, model_id, replaced_model_id, kind, verdict_id, promoted_by, reason)
SELECT
    :promotion_id, :model_id,
    (SELECT model_id FROM models WHERE model_id = :replaced_model_id),  -- a rebuilt database may not know it
    :kind, verdict_id, :promoted_by, :reason
FROM verdicts WHERE verdict_id = :verdict_id
ON CONFLICT (promotion_id) DO NOTHING;

-- name: list_promotions
SELECT promotion_id, kind, model_id, replaced_model_id, verdict_id, promoted_by, promoted_at, reason
FROM promotions ORDER BY promotion_id;

-- name: fetch_promotion
SELECT kind, model_id FROM promotions WHERE promotion_id = :promotion_id;

-- name: fetch_promoted_evidence
SELECT promotions.verdict_id, verdicts.evaluation_id, models.release_key
FROM promotions JOIN verdicts USING (verdict_id) JOIN models ON models.model_id = promotions.model_id
WHERE promotions.model_id = :model_id AND promotions.kind = 'promote'
ORDER BY promotion_id DESC LIMIT 1;

-- name: list_due_releases
-- Releases in effect, or in effect by :horizon, of which the model in service has learnt neither them nor a later one; with how far
-- their work is. A release whose follower is in effect already is nobody's deadline, and neither is a withdrawn one.
SELECT release.release_key, release.effective_from, dataset.dataset_id, model.model_id, verdict.verdict_id,
       verdict.decision, approval.approved, approval.answered_by
FROM releases AS release
LEFT JOIN LATERAL (
    SELECT dataset_id FROM datasets WHERE release_key = release.release_key ORDER BY created_at DESC LIMIT 1
) AS dataset ON true
LEFT JOIN LATERAL (
    SELECT model_id FROM models
    WHERE release_key = release.release_key AND stage <> 'stage_one' ORDER BY created_at DESC LIMIT 1
) AS model ON true
LEFT JOIN LATERAL (
    SELECT verdict_id, decision FROM verdicts WHERE verdicts.model_id = model.model_id
    ORDER BY verdicts.created_at DESC LIMIT 1
) AS verdict ON true
LEFT JOIN LATERAL (
    SELECT approved, answered_by FROM approvals WHERE verdict_id = verdict.verdict_id ORDER BY approval_id DESC LIMIT 1
) AS approval ON true
WHERE release.withdrawn_at IS NULL
  AND release.effective_from <= :horizon
  AND NOT EXISTS (
      SELECT FROM releases AS later
      WHERE later.withdrawn_at IS NULL
        AND later.effective_from > release.effective_from AND later.effective_from <= :on_date
  )
  AND NOT EXISTS (
      SELECT FROM releases AS learnt
      WHERE learnt.release_key = :in_service_release_key
        AND (learnt.release_key = release.release_key OR learnt.effective_from > release.effective_from)
  )
ORDER BY release.effective_from;

-- name: book_deadline_alert
INSERT INTO deadline_alerts (release_key, told_on) VALUES (:release_key, :told_on) ON CONFLICT DO NOTHING;
