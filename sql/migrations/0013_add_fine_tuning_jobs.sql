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
