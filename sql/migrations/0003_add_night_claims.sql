-- Who works on which note right now: a lease, renewed while its worker lives, by the clock of this database.
CREATE TABLE note_claims (
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL REFERENCES models,
    release_key text NOT NULL REFERENCES releases,
    worker text NOT NULL CHECK (worker <> ''),
    expires_at timestamptz NOT NULL,           -- from then on anybody may take the note over
    PRIMARY KEY (encounter_id, note_sha256, model_id, release_key),
    FOREIGN KEY (encounter_id, note_sha256) REFERENCES discharge_summaries ON DELETE CASCADE
);
CREATE INDEX note_claims_worker ON note_claims (worker);

-- Notes that are not coded because of what they are. Holds no patient text. Deleting a row gives its note another chance.
CREATE TABLE quarantined_notes (
    content_sha256 text NOT NULL CHECK (content_sha256 ~ '^[0-9a-f]{64}$'),   -- of the file; of the note where it was a row already
    place text NOT NULL CHECK (place <> ''),   -- file:row; the encounter where the note was a row already
    source text NOT NULL,                      -- name of the file, or discharge_summaries
    encounter_id text,                         -- NULL: unknown
    reason text NOT NULL CHECK (reason IN (
        'empty_note', 'note_too_long', 'binary', 'rtf', 'html', 'wrong_encoding',
        'no_discharge_date', 'bad_date', 'discharge_in_future', 'duplicate_encounter', 'bad_field',
        'unreadable_row', 'unknown_file', 'refused_by_database'
    )),
    coding_date date NOT NULL,                 -- the day that the file was loaded for, or the last of the run
    coding_run_id text REFERENCES coding_runs ON DELETE CASCADE,     -- NULL: found in a file
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (content_sha256, place)
);
CREATE INDEX quarantined_notes_run ON quarantined_notes (coding_run_id);

-- Files of an inbox that were loaded to their end: by content, so that one that comes again under another name is known.
CREATE TABLE loaded_files (
    content_sha256 text PRIMARY KEY CHECK (content_sha256 ~ '^[0-9a-f]{64}$'),
    source text NOT NULL,
    coding_date date NOT NULL,
    encounter_count integer NOT NULL CHECK (encounter_count >= 0),
    quarantined_count integer NOT NULL CHECK (quarantined_count >= 0),
    loaded_at timestamptz NOT NULL DEFAULT now()
);
