-- PATIENT TEXT: the phrases on which people based a code that was not proposed. Read by dataset/corrections.py alone, where the
-- operator allows it.
-- name: list_corrections
SELECT chosen.action_id, review.encounter_id, review.release_key, chosen.code, chosen.origin,
       substr(note.note_text, chosen.evidence_start + 1, chosen.evidence_end - chosen.evidence_start) AS phrase
FROM reviews AS review
JOIN review_codes AS chosen USING (review_id)
JOIN discharge_summaries AS note USING (encounter_id, note_sha256)
WHERE review.status = 'finished'
  AND chosen.state = 'accepted'
  AND chosen.origin IN ('replaced', 'added')
  AND chosen.evidence_start IS NOT NULL
ORDER BY chosen.action_id, chosen.code;

-- name: list_conversions_until
SELECT DISTINCT conversion.previous_code, conversion.code
FROM code_conversions AS conversion
JOIN releases AS release USING (release_key)
WHERE release.withdrawn_at IS NULL
  AND release.effective_from <= (SELECT effective_from FROM releases WHERE release_key = :release_key)
  AND conversion.previous_code <> conversion.code;
