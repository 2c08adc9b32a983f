-- Who saw which note when, and the orders of the pages of reviews.

-- Who was shown which note, and when: written before it is shown. Never any text of a note.
CREATE TABLE note_views (
    view_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    person text NOT NULL CHECK (person <> ''),
    viewed_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (encounter_id, note_sha256) REFERENCES discharge_summaries
);
CREATE INDEX note_views_encounter ON note_views (encounter_id, viewed_at);
CREATE INDEX note_views_person ON note_views (person, viewed_at);

CREATE INDEX reviews_holder ON reviews (claimed_by, priority, review_id) WHERE status = 'claimed';
CREATE INDEX reviews_finished ON reviews (finished_at, review_id) WHERE status = 'finished';
