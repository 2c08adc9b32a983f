-- name: fetch_judged_model
SELECT model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri FROM models WHERE model_id = :model_id;

-- name: record_scorecard
INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard)
VALUES (:evaluation_id, :model_id, :dataset_id, :suites_sha256, :uri, CAST(:scorecard AS jsonb))
ON CONFLICT (evaluation_id) DO NOTHING;

-- name: record_evaluation
INSERT INTO evaluations (evaluation_id, coder, scenario, n, exact_match, exact_low, exact_high, category_match)
VALUES (:evaluation_id, :coder, :scenario, :n, :exact_match, :exact_low, :exact_high, :category_match)
ON CONFLICT (evaluation_id, coder, scenario) DO NOTHING;

-- name: record_verdict
INSERT INTO verdicts (verdict_id, evaluation_id, model_id, against_model_id, decision, reasons)
VALUES (
    :verdict_id, :evaluation_id, :model_id,
    (SELECT model_id FROM models WHERE model_id = :against_model_id),   -- a rebuilt database may not know it
    :decision, CAST(:reasons AS jsonb)
)
ON CONFLICT (verdict_id) DO NOTHING;
