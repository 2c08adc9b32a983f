-- name: fetch_scorecard_place
SELECT uri FROM scorecards WHERE evaluation_id = :evaluation_id;

-- name: fetch_release_report_place
SELECT uri FROM release_reports WHERE report_id = :report_id;
