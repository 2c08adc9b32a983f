-- Releases -----------------------------------------------------------------------------------------------------------

CREATE TABLE releases (
    release_key text PRIMARY KEY CHECK (release_key ~ '^FY20\d\d(-(January|April|July))?(-corrected-[1-9]\d*)?$'),
    effective_from date NOT NULL,
    source text NOT NULL,                      -- where the operator took it from; never a password
    content_sha256 text NOT NULL,              -- over codes, titles, terms and conversions as loaded, not over file bytes
    previous_release_key text REFERENCES releases,
    code_count integer NOT NULL CHECK (code_count > 0),
    billable_count integer NOT NULL CHECK (billable_count BETWEEN 1 AND code_count),
    uri text NOT NULL,                         -- its folder in the artifact store
    ingested_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz                   -- its corrected content stands since then, under another key; what was made from it stays
);
CREATE UNIQUE INDEX releases_standing ON releases (effective_from) WHERE withdrawn_at IS NULL;

CREATE TABLE release_files (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    file_name text NOT NULL,
    kind text NOT NULL,                        -- order, codes, order_addenda, codes_addenda, tabular, index, conversion, ...
    sha256 text NOT NULL,                      -- of the uncompressed bytes
    row_count integer NOT NULL CHECK (row_count >= 0),
    PRIMARY KEY (release_key, file_name)
);

-- The only source of which release is valid on a date. A release is valid from its effective date until the day before the next
-- loaded one takes effect, and not beyond its own fiscal year where a later one is loaded: between them nobody knows the codes. The
-- newest goes on (NULL) until its follower is loaded. A withdrawn release is valid on no date.
CREATE VIEW release_validity AS
SELECT release_key,
       effective_from,
       least(
           lead(effective_from) OVER (ORDER BY effective_from) - 1,
           CASE WHEN lead(effective_from) OVER (ORDER BY effective_from) IS NOT NULL
                THEN make_date(extract(year FROM effective_from + interval '3 months')::integer, 9, 30) END
       ) AS effective_to
FROM releases
WHERE withdrawn_at IS NULL;

CREATE TABLE codes (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    code text NOT NULL CHECK (code ~ '^[A-Z][0-9A-Z]{2,6}$'),
    is_billable boolean NOT NULL,
    short_title text NOT NULL CHECK (short_title <> ''),
    long_title text NOT NULL CHECK (long_title <> ''),
    position integer NOT NULL CHECK (position > 0),   -- tabular order, which is not ASCII order
    PRIMARY KEY (release_key, code),
    UNIQUE (release_key, position),
    UNIQUE (release_key, code, is_billable)    -- so that a prediction can demand a billable code
);
CREATE INDEX codes_code ON codes (code);

-- Every code with the days on which a release says what it is; NULL: until further notice.
CREATE VIEW code_validity AS
SELECT code, long_title, is_billable, effective_from, effective_to, release_key
FROM codes JOIN release_validity USING (release_key);

-- Notes of the tabular list and terms of the alphabetic index, where the release has them.
CREATE TABLE code_terms (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    code text NOT NULL,                        -- may be a block or chapter member that the order file lists as header
    kind text NOT NULL CHECK (kind IN (
        'inclusion_term',                      -- another name of the condition
        'includes',
        'excludes1',                           -- not coded here: never together
        'excludes2',                           -- not included here: may stand together
        'code_first',
        'use_additional_code',
        'code_also',
        'index_term'                           -- the path of the alphabetic index that leads here
    )),
    ordinal integer NOT NULL,
    term text NOT NULL CHECK (term <> ''),
    PRIMARY KEY (release_key, code, kind, ordinal)
);

CREATE TABLE seventh_characters (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    code text NOT NULL,                        -- the stem that defines them
    character text NOT NULL CHECK (length(character) = 1),
    meaning text NOT NULL,
    PRIMARY KEY (release_key, code, character)
);

CREATE TABLE code_changes (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    previous_release_key text NOT NULL REFERENCES releases,
    code text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('added', 'deleted', 'became_header', 'revised')),
    old_title text,
    new_title text,
    PRIMARY KEY (release_key, code),
    CHECK (kind = 'added' OR old_title IS NOT NULL),
    CHECK (kind = 'deleted' OR new_title IS NOT NULL)
);

-- The conversion table of a release: which code replaced which.
CREATE TABLE code_conversions (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    code text NOT NULL,
    previous_code text NOT NULL,
    effective_from date NOT NULL,
    PRIMARY KEY (release_key, code, previous_code)
);

-- What a release changes here, as reported; the newest row of a release counts. Its folder in the artifact store has the rest.
CREATE TABLE release_reports (
    report_id text PRIMARY KEY,
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    previous_release_key text REFERENCES releases,                 -- NULL: the first loaded release
    uri text NOT NULL,
    counts jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Datasets and models ------------------------------------------------------------------------------------------------

CREATE TABLE datasets (
    dataset_id text PRIMARY KEY,
    release_key text NOT NULL REFERENCES releases,
    uri text NOT NULL,
    manifest jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE models (
    model_id text PRIMARY KEY,
    release_key text NOT NULL REFERENCES releases,
    dataset_id text NOT NULL REFERENCES datasets,
    recipe text NOT NULL,
    stage text NOT NULL CHECK (stage IN ('stage_one', 'stage_two', 'notes', 'update')),
    parent_model_id text REFERENCES models,    -- every stage but the first starts from another's model
    uri text NOT NULL,
    manifest jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((stage = 'stage_one') = (parent_model_id IS NULL))
);

-- A line of a training curve.
CREATE TABLE training_metrics (
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    step integer NOT NULL CHECK (step >= 0),
    loss double precision NOT NULL,
    learning_rate double precision NOT NULL,
    tokens_seen bigint NOT NULL,
    tokens_per_second double precision NOT NULL,
    model_flops_utilization double precision CHECK (model_flops_utilization >= 0),  -- NULL: the device's peak is not known
    peak_memory_bytes bigint CHECK (peak_memory_bytes >= 0),                        -- of the first process
    PRIMARY KEY (model_id, step)
);

-- Fine-tuning jobs at servers. A model has one that is not over, or was done well; those that went wrong stay with their reason.
CREATE TABLE fine_tuning_jobs (
    server_url text NOT NULL,
    job_id text NOT NULL,
    model_id text NOT NULL,                    -- the fingerprint that the job trains; in `models` when it is done
    status text NOT NULL,                      -- as the server says it: validating_files, queued, running, succeeded, failed, cancelled
    failure text,                              -- the server's reason
    estimated_tokens bigint NOT NULL CHECK (estimated_tokens >= 0),  -- over all epochs, before it began
    estimated_cost double precision,           -- in the currency of the price; NULL: unknown
    trained_tokens bigint,                     -- as the server counts them, when it is done
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server_url, job_id)
);
CREATE UNIQUE INDEX fine_tuning_jobs_one ON fine_tuning_jobs (model_id) WHERE status NOT IN ('failed', 'cancelled');

-- The last line of each training that has not ended as a model; an old updated_at says that it does not run any more.
CREATE TABLE training_progress (
    model_id text PRIMARY KEY,
    step integer NOT NULL CHECK (step >= 0),
    steps integer NOT NULL CHECK (steps >= step),
    loss double precision NOT NULL,
    learning_rate double precision NOT NULL,
    tokens_seen bigint NOT NULL,
    tokens_per_second double precision NOT NULL,
    model_flops_utilization double precision,
    peak_memory_bytes bigint NOT NULL,
    seconds_left double precision NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scorecards (
    evaluation_id text PRIMARY KEY,
    model_id text NOT NULL REFERENCES models,
    dataset_id text NOT NULL REFERENCES datasets,
    suites_sha256 text NOT NULL,               -- over the items judged: equal where two models answered the same ones
    uri text NOT NULL,
    scorecard jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One cell of a scorecard: how one coder did on one scenario.
CREATE TABLE evaluations (
    evaluation_id text NOT NULL REFERENCES scorecards ON DELETE CASCADE,
    coder text NOT NULL CHECK (coder IN ('untrained', 'lexical', 'stage_one', 'stage_two', 'in_service', 'together')),
    scenario text NOT NULL,
    n integer NOT NULL CHECK (n > 0),
    exact_match double precision NOT NULL CHECK (exact_match BETWEEN 0 AND 1),
    exact_low double precision NOT NULL,       -- 95 % interval
    exact_high double precision NOT NULL,
    category_match double precision NOT NULL CHECK (category_match BETWEEN 0 AND 1),
    PRIMARY KEY (evaluation_id, coder, scenario),
    CHECK (exact_low <= exact_match AND exact_match <= exact_high)
);

CREATE TABLE verdicts (
    verdict_id text PRIMARY KEY,
    evaluation_id text NOT NULL REFERENCES scorecards,               -- judged again when another model is in service
    model_id text NOT NULL REFERENCES models,
    against_model_id text REFERENCES models,   -- the model in service when the verdict was given
    decision text NOT NULL CHECK (decision IN ('PROMOTE', 'HOLD', 'REJECT')),
    reasons jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE approvals (
    approval_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    verdict_id text NOT NULL REFERENCES verdicts,
    approved boolean NOT NULL,
    answered_by text NOT NULL,
    comment text NOT NULL DEFAULT '',
    answered_at timestamptz NOT NULL DEFAULT now()
);

-- The history of the promoted pointer; the newest row is the model in service.
CREATE TABLE promotions (
    promotion_id bigint PRIMARY KEY CHECK (promotion_id > 0),   -- the pointer's count of its moves
    model_id text NOT NULL REFERENCES models,
    replaced_model_id text REFERENCES models,
    kind text NOT NULL CHECK (kind IN ('promote', 'rollback')),
    verdict_id text REFERENCES verdicts,
    promoted_by text NOT NULL,
    promoted_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL DEFAULT '',           -- of a rollback, in a person's words
    CHECK (kind = 'rollback' OR verdict_id IS NOT NULL)   -- no model is promoted without a verdict
);

-- Which deadlines people were told of, at most once a day for each release.
CREATE TABLE deadline_alerts (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    told_on date NOT NULL,
    PRIMARY KEY (release_key, told_on)
);

-- Encounters and codes -----------------------------------------------------------------------------------------------

CREATE TABLE encounters (
    encounter_id text PRIMARY KEY CHECK (encounter_id <> ''),
    patient_id text,
    admission_date date,
    discharge_date date NOT NULL,
    sex text CHECK (sex IN ('F', 'M')),        -- NULL: unknown
    age_years integer CHECK (age_years BETWEEN 0 AND 130),
    source text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CHECK (admission_date <= discharge_date)
);
CREATE INDEX encounters_discharge_date ON encounters (discharge_date);

-- PATIENT TEXT lives in this table and nowhere else. An amended note is a new row; the newest one is current.
CREATE TABLE discharge_summaries (
    encounter_id text NOT NULL REFERENCES encounters,
    note_sha256 text NOT NULL CHECK (note_sha256 ~ '^[0-9a-f]{64}$'),
    note_text text NOT NULL CHECK (note_text <> ''),
    version integer NOT NULL CHECK (version > 0),
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (encounter_id, note_sha256),
    UNIQUE (encounter_id, version)
);

-- Codes that human coders gave, where the source has them: to measure against.
CREATE TABLE gold_codes (
    encounter_id text NOT NULL REFERENCES encounters ON DELETE CASCADE,
    code text NOT NULL,
    rank integer NOT NULL CHECK (rank > 0),
    PRIMARY KEY (encounter_id, code)
);

CREATE TABLE coding_runs (
    coding_run_id text PRIMARY KEY,
    from_date date NOT NULL,                   -- discharge dates, both ends included
    to_date date NOT NULL,
    model_id text NOT NULL REFERENCES models,
    status text NOT NULL CHECK (status IN ('running', 'finished', 'failed')),
    encounter_count integer NOT NULL CHECK (encounter_count >= 0),
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    recode_release_key text REFERENCES releases,   -- only encounters coded with an older release; NULL: every one of its dates
    CHECK (from_date <= to_date),
    CHECK ((status = 'running') = (finished_at IS NULL))
);

-- One row for each note that was coded by a model under a release: the promise of exactly once.
CREATE TABLE coded_notes (
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL REFERENCES models,
    release_key text NOT NULL REFERENCES releases,
    coding_run_id text NOT NULL REFERENCES coding_runs,
    status text NOT NULL CHECK (status IN ('coded', 'failed')),
    failure text,                              -- a reason without patient text
    coded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (encounter_id, note_sha256, model_id, release_key),
    FOREIGN KEY (encounter_id, note_sha256) REFERENCES discharge_summaries,
    CHECK ((status = 'failed') = (failure IS NOT NULL))
);
CREATE INDEX coded_notes_run ON coded_notes (coding_run_id);

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

-- Encounters that a release concerns and that an older one coded, or the withdrawn one of its own date.
CREATE VIEW outdated_codings AS
SELECT release.release_key, coding.encounter_id, coding.discharge_date, coding.note_sha256, coding.release_key AS coded_under
FROM releases AS release
JOIN current_codings AS coding ON coding.discharge_date >= release.effective_from
JOIN releases AS older ON older.release_key = coding.release_key
    AND older.effective_from <= release.effective_from AND older.release_key <> release.release_key
WHERE release.withdrawn_at IS NULL;

-- Encounters of a run that could not be coded at all, and why.
CREATE TABLE uncoded_encounters (
    coding_run_id text NOT NULL REFERENCES coding_runs ON DELETE CASCADE,
    encounter_id text NOT NULL REFERENCES encounters,
    reason text NOT NULL CHECK (reason IN (
        'no_discharge_summary',
        'no_release_on_discharge_date'
    )),
    message text NOT NULL DEFAULT '',          -- for people: what is missing and what to do
    PRIMARY KEY (coding_run_id, encounter_id)
);

CREATE TABLE predictions (
    prediction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    code text NOT NULL,
    is_billable boolean NOT NULL DEFAULT true CHECK (is_billable),   -- with the foreign key: only billable codes of the release
    rank integer NOT NULL CHECK (rank > 0),    -- 1 is the proposed principal diagnosis
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    decision text NOT NULL CHECK (decision IN ('auto', 'review')),
    evidence_start integer NOT NULL CHECK (evidence_start >= 0),     -- character offsets into the note, end exclusive
    evidence_end integer NOT NULL,
    CHECK (evidence_end > evidence_start),
    UNIQUE (encounter_id, note_sha256, model_id, release_key, code),
    FOREIGN KEY (encounter_id, note_sha256, model_id, release_key) REFERENCES coded_notes ON DELETE CASCADE,
    FOREIGN KEY (release_key, code, is_billable) REFERENCES codes (release_key, code, is_billable)
);

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

-- Reviews and exports ------------------------------------------------------------------------------------------------

-- A coded note that a person looks at, or has looked at: one with a code to review, or with no code at all. The release is that of
-- the discharge date. A newer coding of the encounter supersedes what is still open; what is finished stays.
CREATE TABLE reviews (
    review_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encounter_id text NOT NULL,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'claimed', 'finished', 'superseded')),
    version integer NOT NULL DEFAULT 0 CHECK (version >= 0),          -- one more with each action; a write names the one it saw
    priority double precision NOT NULL CHECK (priority BETWEEN 0 AND 1),   -- coding/review.py has the formula over the next three
    uncertainty double precision NOT NULL CHECK (uncertainty BETWEEN 0 AND 1),
    money double precision NOT NULL CHECK (money BETWEEN 0 AND 1),
    rarity double precision NOT NULL CHECK (rarity BETWEEN 0 AND 1),
    claimed_by text CHECK (claimed_by <> ''),
    claimed_until timestamptz,                 -- later than now(): nobody else may write
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
CREATE INDEX reviews_holder ON reviews (claimed_by, priority, review_id) WHERE status = 'claimed';
CREATE INDEX reviews_finished ON reviews (finished_at, review_id) WHERE status = 'finished';

-- Who did what to a review, when: the rows of `review_codes` (or the status) before and after. Never any text of a note.
CREATE TABLE review_actions (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    review_id bigint NOT NULL REFERENCES reviews,
    version integer NOT NULL,                  -- of the review after it: no write without its row here
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

-- The code set under review.
CREATE TABLE review_codes (
    review_id bigint NOT NULL,
    code text NOT NULL,
    release_key text NOT NULL,
    is_billable boolean NOT NULL DEFAULT true CHECK (is_billable),
    rank integer NOT NULL CHECK (rank > 0),
    origin text NOT NULL CHECK (origin IN ('predicted', 'replaced', 'added')),
    state text NOT NULL CHECK (state IN ('open', 'accepted', 'removed')),
    prediction_id bigint REFERENCES predictions,   -- the proposal, or the one that this code replaces
    evidence_start integer CHECK (evidence_start >= 0),   -- character offsets into the note, end exclusive
    evidence_end integer CHECK (evidence_end > evidence_start),
    action_id bigint REFERENCES review_actions,    -- the newest that changed this row; NULL: as proposed
    PRIMARY KEY (review_id, code),
    FOREIGN KEY (review_id, release_key) REFERENCES reviews (review_id, release_key),
    FOREIGN KEY (release_key, code, is_billable) REFERENCES codes (release_key, code, is_billable),
    CHECK ((origin = 'added') = (prediction_id IS NULL)),
    CHECK ((evidence_start IS NULL) = (evidence_end IS NULL)),
    CHECK (state <> 'open' OR origin = 'predicted')
);

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

-- The codes of each encounter that count: as finished in a review of its current coding's text, else as coded.
CREATE VIEW final_codes AS
SELECT coding.encounter_id, coding.discharge_date, used.code
FROM current_codings AS coding
CROSS JOIN LATERAL (
    SELECT max(review_id) AS review_id FROM reviews
    WHERE reviews.encounter_id = coding.encounter_id AND reviews.note_sha256 = coding.note_sha256 AND reviews.status = 'finished'
) AS finished
CROSS JOIN LATERAL (
    SELECT chosen.code FROM review_codes AS chosen
    WHERE chosen.review_id = finished.review_id AND chosen.state = 'accepted'
    UNION ALL
    SELECT prediction.code FROM predictions AS prediction
    WHERE finished.review_id IS NULL
      AND (prediction.encounter_id, prediction.note_sha256, prediction.model_id, prediction.release_key)
        = (coding.encounter_id, coding.note_sha256, coding.model_id, coding.release_key)
) AS used;

-- What left the system: one folder in the artifact store each, written before its row.
CREATE TABLE exports (
    export_id bigint PRIMARY KEY CHECK (export_id > 0),
    uri text NOT NULL,
    manifest jsonb NOT NULL,
    encounter_count integer NOT NULL CHECK (encounter_count > 0),
    exported_at timestamptz NOT NULL DEFAULT now()
);

-- The state of an encounter in each export; it is exported again when its newest row here is not its present state.
CREATE TABLE exported_encounters (
    export_id bigint NOT NULL REFERENCES exports,
    encounter_id text NOT NULL REFERENCES encounters,
    note_sha256 text NOT NULL,
    model_id text NOT NULL,
    release_key text NOT NULL,
    review_version integer NOT NULL CHECK (review_version >= 0),   -- 0: no person looked at it
    codes text[] NOT NULL,
    PRIMARY KEY (encounter_id, export_id)
);

-- What each night looked like in numbers, and how it compares with the nights before.
CREATE TABLE night_statistics (
    coding_run_id text PRIMARY KEY REFERENCES coding_runs ON DELETE CASCADE,
    notes integer NOT NULL CHECK (notes >= 0),
    codes integer NOT NULL CHECK (codes >= 0),
    mean_confidence double precision CHECK (mean_confidence BETWEEN 0 AND 1),
    confidence_deviation double precision NOT NULL CHECK (confidence_deviation >= 0),
    auto_share double precision CHECK (auto_share BETWEEN 0 AND 1),                   -- of codes
    review_share double precision CHECK (review_share BETWEEN 0 AND 1),               -- of notes: those with a code to review
    failed_share double precision CHECK (failed_share BETWEEN 0 AND 1),               -- of notes
    unknown_word_share double precision CHECK (unknown_word_share BETWEEN 0 AND 1),   -- of the words of a sample of notes
    chapters jsonb NOT NULL,                   -- codes by chapter, "01" to "22"
    nights_compared integer NOT NULL CHECK (nights_compared BETWEEN 0 AND 30),
    stability_index double precision,          -- of the mix of chapters; NULL: not compared
    out_of_band jsonb NOT NULL,                -- figures that left their band: name, value, low, high
    measured_at timestamptz NOT NULL DEFAULT now()
);

-- How long each step of the loop took, for people who ask.
CREATE TABLE step_runs (
    step_run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    step text NOT NULL,
    subject text NOT NULL,                     -- release key, dataset id, model id or coding run id
    seconds double precision NOT NULL CHECK (seconds >= 0),
    peak_memory_mib double precision NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    finished_at timestamptz NOT NULL DEFAULT now()
);
