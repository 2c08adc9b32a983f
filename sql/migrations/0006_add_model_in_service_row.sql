-- A scorecard has a row for the model in service, on the same items.
ALTER TABLE evaluations DROP CONSTRAINT evaluations_coder_check;
ALTER TABLE evaluations ADD CONSTRAINT evaluations_coder_check
    CHECK (coder IN ('untrained', 'lexical', 'stage_one', 'stage_two', 'in_service', 'together'));
