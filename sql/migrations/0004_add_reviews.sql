-- The review queue, its audit, and what was exported.

CREATE TABLE reviews (
    review_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'claimed', 'finished', 'superseded')),
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),
    priority double precision NOT NULL CHECK (priority BETWEEN 0 AND 1),
    uncertainty double precision NOT NULL CHECK (uncertainty BETWEEN 0 AND 1),
    money double precision NOT NULL CHECK (money BETWEEN 0 AND 1),
    rarity double precision NOT NULL CHECK (rarity BETWEEN 0 AND 1),
    claimed_by text CHECK (claimed_by <> ''),
    claimed_until timestamptz,
    finished_by text CHECK (finished_by <> ''),
    finished_at timestamptz,
    opened_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (encounter_id, note_sha256, model_id, release_key),
    UNIQUE (review_id, release_key),
    FOREIGN KEY (encounter_id, note_sha256, model_id, release_key) REFERENCES coded_notes,
    CHECK ((status = 'claimed') = (claimed_by IS NOT NULL)),
    CHECK ((status = 'claimed') = (claimed_until IS NOT NULL)),
    CHECK ((status = 'finished') = (finished_by IS NOT NULL)),
    CHECK ((status = 'finished') = (finished_at IS NOT NULL))
);
CREATE INDEX reviews_queue ON reviews (priority, review_id) WHERE status IN ('waiting', 'claimed');
CREATE UNIQUE INDEX reviews_one_open ON reviews (encounter_id) WHERE status IN ('waiting', 'claimed');

CREATE TABLE review_actions (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    review_id bigint NOT NULL REFERENCES reviews,
    version integer NOT NULL,
    person text NOT NULL CHECK (person <> ''),
    action text NOT NULL CHECK (action IN (
        'claim', 'release', 'accept', 'replace', 'add', 'remove', 'undo', 'finish', 'reopen', 'supersede'
    )),
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    undoes bigint UNIQUE REFERENCES review_actions,
    acted_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (review_id, version),
    CHECK ((action = 'undo') = (undoes IS NOT NULL))
);

CREATE TABLE review_codes (
    review_id bigint NOT NULL,
    code text NOT NULL,
    release_key text NOT NULL,
    is_billable boolean NOT NULL DEFAULT true CHECK (is_billable),
    rank integer NOT NULL CHECK (rank > 0),
    origin text NOT NULL CHECK (origin IN ('predicted', 'replaced', 'added')),
    state text NOT NULL CHECK (state IN ('open', 'accepted', 'removed')),
    prediction_id bigint REFERENCES predictions,
    evidence_start integer CHECK (evidence_start >= 0),
    evidence_end integer CHECK (evidence_end > evidence_start),
    action_id bigint REFERENCES review_actions,
    PRIMARY KEY (review_id, code),
    FOREIGN KEY (review_id, release_key) REFERENCES reviews (review_id, release_key),
    FOREIGN KEY (release_key, code, is_billable) REFERENCES codes (release_key, code, is_billable),
    CHECK ((origin = 'added') = (prediction_id IS NULL)),
    CHECK ((evidence_start IS NULL) = (evidence_end IS NULL)),
    CHECK (state <> 'open' OR origin = 'predicted')
);

CREATE TABLE exports (
    export_id bigint PRIMARY KEY CHECK (export_id > 0),
    uri text NOT NULL,
    manifest jsonb NOT NULL,
    encounter_count integer NOT NULL CHECK (encounter_count > 0),
    exported_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE exported_encounters (
    export_id bigint NOT NULL REFERENCES exports,
    encounter_id text NOT NULL REFERENCES encounters,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    review_version integer NOT NULL CHECK (review_version >= 0),
    codes text[] NOT NULL,
    PRIMARY KEY (encounter_id, export_id)
);
