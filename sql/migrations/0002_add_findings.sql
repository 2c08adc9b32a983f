-- What rules and payer edits did with the codes of a note, and why. Holds no patient text.
CREATE TABLE findings (
    finding_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    rank integer NOT NULL CHECK (rank > 0),    -- the order in which the rules spoke
    rule text NOT NULL CHECK (rule ~ '^[a-z][a-z0-9_]*$'),
    action text NOT NULL CHECK (action IN ('removed', 'replaced', 'added', 'flagged')),
    code text NOT NULL CHECK (code ~ '^[A-Z][0-9A-Z]{2,6}$'),
    related_code text CHECK (related_code ~ '^[A-Z][0-9A-Z]{2,6}$'),
    reason text NOT NULL CHECK (reason <> ''),
    evidence_start integer NOT NULL CHECK (evidence_start >= 0),     -- character offsets into the note, end exclusive
    evidence_end integer NOT NULL,
    CHECK (evidence_end > evidence_start),
    CHECK (action <> 'replaced' OR related_code IS NOT NULL),
    UNIQUE (encounter_id, note_sha256, model_id, release_key, rank),
    FOREIGN KEY (encounter_id, note_sha256, model_id, release_key) REFERENCES coded_notes ON DELETE CASCADE
);

-- The diagnosis related group of a coded note with all proposed codes, and with those that pass by themselves.
CREATE TABLE drgs (
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    basis text NOT NULL CHECK (basis IN ('all', 'auto')),
    grouper_version integer NOT NULL,          -- 431 is version 43.1
    drg integer NOT NULL CHECK (drg BETWEEN 1 AND 999),
    category integer CHECK (category BETWEEN 0 AND 25),              -- major diagnostic category
    title text NOT NULL,
    PRIMARY KEY (encounter_id, note_sha256, model_id, release_key, basis),
    FOREIGN KEY (encounter_id, note_sha256, model_id, release_key) REFERENCES coded_notes ON DELETE CASCADE
);
