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
