-- A release that its publisher withdrew and corrected stays, with all that was made from it; the corrected content stands beside it
-- under a key of its own and is valid in its stead.

ALTER TABLE releases DROP CONSTRAINT releases_release_key_check;
ALTER TABLE releases ADD CONSTRAINT releases_release_key_check
    CHECK (release_key ~ '^FY20\d\d(-(January|April|July))?(-corrected-[1-9]\d*)?$');
ALTER TABLE releases ADD COLUMN withdrawn_at timestamptz;
ALTER TABLE releases DROP CONSTRAINT releases_effective_from_key;
CREATE UNIQUE INDEX releases_standing ON releases (effective_from) WHERE withdrawn_at IS NULL;

-- The only source of which release is valid on a date. A release is valid from its effective date until the day before the next
-- loaded one takes effect, and not beyond its own fiscal year where a later one is loaded: between them nobody knows the codes. The
-- newest goes on (NULL) until its follower is loaded. A withdrawn release is valid on no date.
CREATE OR REPLACE VIEW release_validity AS
SELECT release_key,
       effective_from,
       least(
           lead(effective_from) OVER (ORDER BY effective_from) - 1,
           CASE WHEN lead(effective_from) OVER (ORDER BY effective_from) IS NOT NULL
                THEN make_date(extract(year FROM effective_from + interval '3 months')::integer, 9, 30) END
       ) AS effective_to
FROM releases
WHERE withdrawn_at IS NULL;

-- Encounters that a release concerns and that an older one coded, or the withdrawn one of its own date.
CREATE OR REPLACE VIEW outdated_codings AS
SELECT release.release_key, coding.encounter_id, coding.discharge_date, coding.note_sha256, coding.release_key AS coded_under
FROM releases AS release
JOIN current_codings AS coding ON coding.discharge_date >= release.effective_from
JOIN releases AS older ON older.release_key = coding.release_key
    AND older.effective_from <= release.effective_from AND older.release_key <> release.release_key
WHERE release.withdrawn_at IS NULL;
