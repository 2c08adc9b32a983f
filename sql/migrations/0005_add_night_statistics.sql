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
