-- What starts workflows at times. The definition and how far it has come are encoded messages; the reminder brings its
-- next step.
CREATE TABLE schedules (
    hub TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    definition BLOB NOT NULL,
    progress BLOB NOT NULL,
    reminder INTEGER NOT NULL,
    PRIMARY KEY (hub, id)
) WITHOUT ROWID;
