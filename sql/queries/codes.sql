-- name: fetch_codes_as_columns
-- One row of arrays: a release has 98,000 codes, and the driver reads an array many times faster than rows.
SELECT coalesce(array_agg(code ORDER BY position), '{}') AS codes,
       coalesce(array_agg(is_billable ORDER BY position), '{}') AS are_billable,
       coalesce(array_agg(short_title ORDER BY position), '{}') AS short_titles,
       coalesce(array_agg(long_title ORDER BY position), '{}') AS long_titles
FROM codes WHERE release_key = :release_key;

-- name: fetch_terms_as_columns
SELECT coalesce(array_agg(code ORDER BY code, kind, ordinal), '{}') AS codes,
       coalesce(array_agg(kind ORDER BY code, kind, ordinal), '{}') AS kinds,
       coalesce(array_agg(term ORDER BY code, kind, ordinal), '{}') AS terms
FROM code_terms WHERE release_key = :release_key;

-- Every release that has the code, and the days on which it says what it is; `codes_code` finds them.
-- name: list_code_validity
SELECT code, long_title AS title, is_billable, effective_from AS valid_from, effective_to AS valid_until, release_key
FROM code_validity WHERE code = :code ORDER BY effective_from;

-- name: find_code_on
SELECT code, long_title AS title, is_billable, effective_from AS valid_from, effective_to AS valid_until, release_key
FROM code_validity WHERE code = :code AND :on_date BETWEEN effective_from AND coalesce(effective_to, 'infinity');

-- The billable codes of a release that took over from a code, from conversion table to conversion table, or that stand below it now.
-- name: list_successors
WITH RECURSIVE following AS (
    SELECT CAST(:code AS text) AS code
    UNION
    SELECT conversion.code
    FROM following
    JOIN code_conversions AS conversion ON conversion.previous_code = following.code
    JOIN releases AS release USING (release_key)
    WHERE release.withdrawn_at IS NULL
      AND release.effective_from <= (SELECT effective_from FROM releases WHERE release_key = :release_key)
)
SELECT code, long_title AS title
FROM codes
WHERE release_key = :release_key AND is_billable AND code <> :code
  AND (code IN (SELECT code FROM following) OR starts_with(code, :code))
ORDER BY position;
