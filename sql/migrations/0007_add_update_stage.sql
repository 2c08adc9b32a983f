-- A model may be brought up to date with a later release: it starts from one of an earlier release.
ALTER TABLE models DROP CONSTRAINT models_stage_check;
ALTER TABLE models ADD CONSTRAINT models_stage_check CHECK (stage IN ('stage_one', 'stage_two', 'update'));
ALTER TABLE models DROP CONSTRAINT models_check;
ALTER TABLE models ADD CONSTRAINT models_check CHECK ((stage = 'stage_one') = (parent_model_id IS NULL));
