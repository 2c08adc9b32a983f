-- Which release is valid on a date, codes by date, and encounters that a newer release has to code again.

-- The only source of which release is valid on a date. A release is valid from its effective date until the day before the next
-- loaded one takes effect, and not beyond its own fiscal year where a later one is loaded: between them nobody knows the codes. The
-- newest goes on (NULL) until its follower is loaded.
CREATE OR REPLACE VIEW release_validity AS
SELECT release_key,
       effective_from,
       least(
           lead(effective_from) OVER (ORDER BY effective_from) - 1,
           CASE WHEN lead(effective_from) OVER (ORDER BY effective_from) IS NOT NULL
                THEN make_date(extract(year FROM effective_from + interval '3 months')::integer, 9, 30) END
       ) AS effective_to
FROM releases;

-- Every code with the days on which a release says what it is; NULL: until further notice.
CREATE VIEW code_validity AS
SELECT code, long_title, is_billable, effective_from, effective_to, release_key
FROM codes JOIN release_validity USING (release_key);

ALTER TABLE coding_runs ADD COLUMN recode_release_key text REFERENCES releases;

ALTER TABLE uncoded_encounters ADD COLUMN message text NOT NULL DEFAULT '';

-- The coding of each encounter that counts: of its newest text, the newest.
CREATE VIEW current_codings AS
SELECT encounter.encounter_id, encounter.discharge_date, newest.note_sha256, newest.model_id, newest.release_key
FROM encounters AS encounter
CROSS JOIN LATERAL (
    SELECT note.note_sha256, note.model_id, note.release_key
    FROM coded_notes AS note
    JOIN discharge_summaries AS summary USING (encounter_id, note_sha256)
    WHERE note.encounter_id = encounter.encounter_id AND note.status = 'coded'
    ORDER BY summary.version DESC, note.coded_at DESC, note.model_id DESC
    LIMIT 1
) AS newest;

-- Encounters that a release concerns and that an older one coded.
CREATE VIEW outdated_codings AS
SELECT release.release_key, coding.encounter_id, coding.discharge_date, coding.note_sha256, coding.release_key AS coded_under
FROM releases AS release
JOIN current_codings AS coding ON coding.discharge_date >= release.effective_from
JOIN releases AS older ON older.release_key = coding.release_key AND older.effective_from < release.effective_from;
