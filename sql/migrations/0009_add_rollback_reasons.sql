-- Why a model was put back, and which deadlines people were told of on which day.
ALTER TABLE promotions ADD COLUMN reason text NOT NULL DEFAULT '';
CREATE TABLE deadline_alerts (
    release_key text NOT NULL REFERENCES releases ON DELETE CASCADE,
    told_on date NOT NULL,
    PRIMARY KEY (release_key, told_on)
);
