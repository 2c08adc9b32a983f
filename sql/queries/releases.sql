-- name: lock_releases
-- Two ingests never run at once: each looks at its neighbours.
SELECT pg_advisory_xact_lock(:lock);

-- name: fetch_release
SELECT release_key, effective_from, source, content_sha256, previous_release_key, code_count, billable_count, uri, ingested_at
FROM releases WHERE release_key = :release_key;

-- name: list_releases
SELECT release_key, effective_from, effective_to, source, content_sha256, previous_release_key, code_count, billable_count, uri,
       ingested_at
FROM releases JOIN release_validity USING (release_key, effective_from) ORDER BY effective_from;

-- name: find_release_on
SELECT release_key, uri FROM releases JOIN release_validity USING (release_key)
WHERE :on_date BETWEEN release_validity.effective_from AND coalesce(effective_to, 'infinity');

-- name: find_release_before
SELECT release_key, effective_from, billable_count, code_count FROM releases
WHERE effective_from < :effective_from ORDER BY effective_from DESC LIMIT 1;

-- name: find_release_after
SELECT release_key, effective_from, billable_count, code_count FROM releases
WHERE effective_from > :effective_from ORDER BY effective_from LIMIT 1;

-- name: fetch_billable_as_columns
SELECT coalesce(array_agg(code), '{}') AS codes, coalesce(array_agg(long_title), '{}') AS titles
FROM codes WHERE release_key = :release_key AND is_billable;

-- name: upsert_release
INSERT INTO releases (release_key, effective_from, source, content_sha256, previous_release_key, code_count, billable_count, uri)
VALUES (:release_key, :effective_from, :source, :content_sha256, :previous_release_key, :code_count, :billable_count, :uri)
ON CONFLICT (release_key) DO UPDATE SET
    source = excluded.source, content_sha256 = excluded.content_sha256, previous_release_key = excluded.previous_release_key,
    code_count = excluded.code_count, billable_count = excluded.billable_count, uri = excluded.uri, ingested_at = now();

-- name: link_release
UPDATE releases SET previous_release_key = :previous_release_key WHERE release_key = :release_key;

-- name: delete_codes
DELETE FROM codes WHERE release_key = :release_key;

-- name: delete_code_terms
DELETE FROM code_terms WHERE release_key = :release_key;

-- name: delete_seventh_characters
DELETE FROM seventh_characters WHERE release_key = :release_key;

-- name: delete_code_conversions
DELETE FROM code_conversions WHERE release_key = :release_key;

-- name: delete_release_files
DELETE FROM release_files WHERE release_key = :release_key;

-- name: delete_code_changes
DELETE FROM code_changes WHERE release_key = :release_key;

-- name: update_short_titles
UPDATE codes SET short_title = fresh.short_title
FROM unnest(CAST(:codes AS text[]), CAST(:short_titles AS text[])) AS fresh (code, short_title)
WHERE codes.release_key = :release_key AND codes.code = fresh.code AND codes.short_title <> fresh.short_title;

-- name: count_release_dependents
SELECT (SELECT count(*) FROM datasets WHERE release_key = :release_key) AS datasets,
       (SELECT count(*) FROM models WHERE release_key = :release_key) AS models,
       (SELECT count(*) FROM coded_notes WHERE release_key = :release_key) AS "coded notes",
       (SELECT count(*) FROM predictions WHERE release_key = :release_key) AS predictions;

-- name: list_release_files
SELECT file_name, kind, sha256, row_count FROM release_files WHERE release_key = :release_key ORDER BY file_name;

-- name: count_code_changes
SELECT kind, count(*) AS count FROM code_changes WHERE release_key = :release_key GROUP BY kind ORDER BY kind;

-- name: list_code_changes
SELECT code, kind, old_title, new_title, previous_release_key FROM code_changes WHERE release_key = :release_key ORDER BY code;
