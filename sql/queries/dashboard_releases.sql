-- name: list_release_pages
SELECT release.release_key, release.effective_from, validity.effective_to, release.withdrawn_at, release.source, release.code_count, release.billable_count,
       release.ingested_at, report.report_id, report.counts,
       EXISTS (SELECT FROM code_terms WHERE release_key = release.release_key) AS has_terms,
       EXISTS (SELECT FROM code_conversions WHERE release_key = release.release_key) AS has_conversions,
       (SELECT count(*) FROM models WHERE release_key = release.release_key AND stage <> 'stage_one') AS models
FROM releases AS release
LEFT JOIN release_validity AS validity USING (release_key)
LEFT JOIN LATERAL (
    SELECT report_id, counts FROM release_reports WHERE release_key = release.release_key ORDER BY created_at DESC LIMIT 1
) AS report ON true
ORDER BY release.effective_from DESC, release.release_key DESC;

-- name: fetch_release_page
SELECT release.release_key, release.effective_from, validity.effective_to, release.withdrawn_at, release.source, release.content_sha256,
       release.previous_release_key, release.code_count, release.billable_count, release.ingested_at,
       report.report_id, report.uri AS report_uri, report.counts, report.previous_release_key AS compared_with,
       report.created_at AS reported_at
FROM releases AS release
LEFT JOIN release_validity AS validity USING (release_key)
LEFT JOIN LATERAL (
    SELECT report_id, uri, counts, previous_release_key, created_at FROM release_reports
    WHERE release_key = release.release_key ORDER BY created_at DESC LIMIT 1
) AS report ON true
WHERE release.release_key = :release_key;

-- Rows of each table beside codes, and what was made of the release.
-- name: count_release_contents
SELECT (SELECT count(*) FROM code_terms WHERE release_key = :release_key) AS terms,
       (SELECT count(*) FROM seventh_characters WHERE release_key = :release_key) AS seventh_characters,
       (SELECT count(*) FROM code_conversions WHERE release_key = :release_key) AS conversions,
       (SELECT count(*) FROM datasets WHERE release_key = :release_key) AS datasets;

-- name: list_release_models
SELECT model_id, stage, recipe, created_at,
       (SELECT decision FROM verdicts WHERE verdicts.model_id = models.model_id ORDER BY verdicts.created_at DESC LIMIT 1) AS decision
FROM models WHERE release_key = :release_key AND stage <> 'stage_one' ORDER BY created_at DESC LIMIT 20;

-- Changes of one kind, or of all, with the codes that the release's conversion table names as followers.
-- name: list_change_pages
SELECT code, kind, old_title, new_title,
       ARRAY (
           SELECT conversion.code FROM code_conversions AS conversion
           WHERE conversion.release_key = :release_key AND conversion.previous_code = change.code ORDER BY conversion.code LIMIT 12
       ) AS followers
FROM code_changes AS change
WHERE release_key = :release_key
  AND (CAST(:kind AS text) IS NULL OR kind = :kind)
  AND (CAST(:after_code AS text) IS NULL OR code > :after_code)
ORDER BY code
LIMIT :limit;

-- name: list_release_keys
SELECT release_key, effective_from, effective_to,
       current_date BETWEEN effective_from AND coalesce(effective_to, 'infinity') AS is_valid_today
FROM release_validity ORDER BY effective_from DESC;

-- Codes that begin with a prefix, in the order of the tabular list. In any collation of letters and digits Z is the last.
-- name: find_codes_by_prefix
SELECT code, is_billable, long_title AS title, position, CAST(NULL AS text) AS term
FROM codes
WHERE release_key = :release_key AND code BETWEEN :prefix AND rpad(:prefix, 7, 'Z')
  AND position > :after_position
ORDER BY position
LIMIT :limit;

-- Codes with every word in their long title, or all in one term that names them. Each word is an array of patterns, in small letters,
-- with a capital, and in capitals: comparing letter by letter with LIKE is ten times as fast as ILIKE, and needs no index beside that
-- of the release.
-- name: find_codes_by_words
SELECT code.code, code.is_billable, code.long_title AS title, code.position, named.term
FROM codes AS code
LEFT JOIN (
    SELECT code, min(term) AS term FROM code_terms
    WHERE release_key = :release_key AND kind IN ('inclusion_term', 'includes', 'index_term')
      AND term LIKE ANY (CAST(:word_1 AS text[])) AND term LIKE ANY (CAST(:word_2 AS text[]))
      AND term LIKE ANY (CAST(:word_3 AS text[])) AND term LIKE ANY (CAST(:word_4 AS text[]))
      AND term LIKE ANY (CAST(:word_5 AS text[])) AND term LIKE ANY (CAST(:word_6 AS text[]))
    GROUP BY code
) AS named ON named.code = code.code
WHERE code.release_key = :release_key AND code.position > :after_position
  AND (named.code IS NOT NULL
       OR code.long_title LIKE ANY (CAST(:word_1 AS text[])) AND code.long_title LIKE ANY (CAST(:word_2 AS text[]))
       AND code.long_title LIKE ANY (CAST(:word_3 AS text[])) AND code.long_title LIKE ANY (CAST(:word_4 AS text[]))
       AND code.long_title LIKE ANY (CAST(:word_5 AS text[])) AND code.long_title LIKE ANY (CAST(:word_6 AS text[])))
ORDER BY code.position
LIMIT :limit;

-- What every loaded release says of a code; NULL titles where it lacks the code.
-- name: list_code_history
SELECT validity.release_key, validity.effective_from, validity.effective_to, code.is_billable, code.long_title AS title
FROM release_validity AS validity
LEFT JOIN codes AS code ON code.release_key = validity.release_key AND code.code = :code
ORDER BY validity.effective_from;

-- Codes that this one took over from, and codes that took over from it, by the conversion tables of all releases that stand.
-- name: list_code_kin
SELECT kin.direction, kin.code, kin.effective_from,
       (SELECT codes.long_title FROM codes JOIN releases USING (release_key) WHERE codes.code = kin.code
        ORDER BY releases.effective_from DESC LIMIT 1) AS title
FROM (
    SELECT 'predecessor' AS direction, previous_code AS code, min(conversion.effective_from) AS effective_from
    FROM code_conversions AS conversion JOIN releases USING (release_key)
    WHERE code = :code AND withdrawn_at IS NULL GROUP BY previous_code
    UNION ALL
    SELECT 'successor', code, min(conversion.effective_from)
    FROM code_conversions AS conversion JOIN releases USING (release_key)
    WHERE previous_code = :code AND withdrawn_at IS NULL GROUP BY code
) AS kin
WHERE kin.code <> :code
ORDER BY kin.direction, kin.effective_from, kin.code
LIMIT 200;

-- name: list_code_terms
SELECT kind, term FROM code_terms WHERE release_key = :release_key AND code = :code ORDER BY kind, ordinal LIMIT 200;

-- name: list_codes_below
SELECT code, is_billable, long_title AS title FROM codes
WHERE release_key = :release_key AND code BETWEEN :code AND rpad(:code, 7, 'Z') AND code <> :code
ORDER BY position LIMIT 60;
