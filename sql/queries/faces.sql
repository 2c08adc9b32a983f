-- name: fetch_verdict
SELECT verdict_id, model_id, against_model_id, decision, reasons, scorecards.uri AS scorecard_uri, evaluation_id, models.uri AS model_uri
FROM verdicts JOIN scorecards USING (evaluation_id, model_id) JOIN models USING (model_id)
WHERE verdict_id = :verdict_id;

-- name: list_scores
SELECT coder, scenario, n, exact_match, exact_low, exact_high, category_match
FROM evaluations WHERE evaluation_id = :evaluation_id
ORDER BY array_position(ARRAY['untrained', 'lexical', 'stage_one', 'stage_two', 'together'], coder), scenario;
