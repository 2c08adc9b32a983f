-- What a training shows while it runs, and how well it used its device; and the stage over whole clinical notes.
ALTER TABLE training_metrics ADD COLUMN model_flops_utilization double precision CHECK (model_flops_utilization >= 0);
ALTER TABLE training_metrics ADD COLUMN peak_memory_bytes bigint CHECK (peak_memory_bytes >= 0);

ALTER TABLE models DROP CONSTRAINT models_stage_check;
ALTER TABLE models ADD CONSTRAINT models_stage_check CHECK (stage IN ('stage_one', 'stage_two', 'notes', 'update'));

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
