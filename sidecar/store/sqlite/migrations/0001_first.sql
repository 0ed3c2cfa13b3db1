CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Workflow instances and entities: one row each; what changes often is small, logs and outputs are elsewhere.
CREATE TABLE instances (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    hub TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    status INTEGER NOT NULL,
    suspended INTEGER NOT NULL,
    began INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    scheduled_at INTEGER,
    origin TEXT NOT NULL,
    execution TEXT NOT NULL,
    covered INTEGER NOT NULL,
    workflow_time INTEGER NOT NULL,
    custom_status TEXT,
    failure BLOB,
    tags BLOB NOT NULL,
    parent_namespace TEXT,
    parent_app TEXT,
    parent_hub TEXT,
    parent_id TEXT,
    parent_execution TEXT,
    parent_turn INTEGER,
    parent_task INTEGER,
    parent_name TEXT,
    detached INTEGER NOT NULL,
    trace BLOB NOT NULL,
    rewind INTEGER NOT NULL,
    stall BLOB,
    recorded BLOB NOT NULL,
    entity INTEGER NOT NULL,
    lock_owner TEXT,
    lock_execution TEXT,
    lock_section TEXT,
    lineage INTEGER NOT NULL,
    UNIQUE (hub, id)
);
CREATE INDEX instances_ready ON instances (entity, key) WHERE ready = 1;
-- What queries walk along, one status after the other; the key, which tells instances of one moment apart, is the last
-- column of every index.
CREATE INDEX instances_created ON instances (hub, entity, status, created_at);
CREATE INDEX instances_completed ON instances (hub, entity, status, completed_at) WHERE completed_at IS NOT NULL;

-- Outputs of workflows, and the states of entities that have one.
CREATE TABLE outputs (
    key INTEGER PRIMARY KEY,
    output TEXT NOT NULL
);

-- The history of its callers that an instance was given.
CREATE TABLE lineages (
    key INTEGER PRIMARY KEY,
    history BLOB NOT NULL
);

-- The log of each instance; what lies behind instances.covered is its inbox.
CREATE TABLE history (
    key INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    place INTEGER NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (key, turn, place)
) WITHOUT ROWID;

CREATE TABLE open_calls (
    key INTEGER NOT NULL,
    task INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    execution TEXT NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    target_namespace TEXT NOT NULL,
    target_app TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_hub TEXT NOT NULL,
    target_id TEXT NOT NULL,
    reminder INTEGER NOT NULL,
    entities TEXT NOT NULL,
    PRIMARY KEY (key, task)
) WITHOUT ROWID;

-- Child workflows, over continue-as-new; ended ones stay until the instance is purged.
CREATE TABLE children (
    key INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    app TEXT NOT NULL,
    hub TEXT NOT NULL,
    id TEXT NOT NULL,
    execution TEXT NOT NULL,
    turn INTEGER NOT NULL,
    task INTEGER NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, execution, turn, task)
) WITHOUT ROWID;

-- place: 0 for an own workflow, 1 for the own workers, 2 for another app.
CREATE TABLE reminders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    target_namespace TEXT NOT NULL,
    target_app TEXT NOT NULL,
    target_kind TEXT NOT NULL,
    target_hub TEXT NOT NULL,
    target_id TEXT NOT NULL,
    source_namespace TEXT NOT NULL,
    source_app TEXT NOT NULL,
    source_kind TEXT NOT NULL,
    source_hub TEXT NOT NULL,
    source_id TEXT NOT NULL,
    execution TEXT NOT NULL,
    turn INTEGER NOT NULL,
    task INTEGER NOT NULL,
    due INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    held INTEGER NOT NULL,
    place INTEGER NOT NULL,
    accepted_by TEXT NOT NULL DEFAULT '',
    deliveries INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
);
CREATE INDEX reminders_due ON reminders (due, id) WHERE place = 0;
CREATE INDEX reminders_work ON reminders (id) WHERE place = 1;
CREATE INDEX reminders_outbound ON reminders (target_namespace, target_app, accepted_by, id) WHERE place = 2;
CREATE INDEX reminders_start ON reminders (owner) WHERE kind = 1;
-- An activity of another app is taken in once, and not again while its result waits to go home.
CREATE UNIQUE INDEX reminders_foreign
    ON reminders (source_namespace, source_app, execution, turn, task) WHERE place = 1 AND owner = 0;
CREATE INDEX reminders_answers
    ON reminders (target_namespace, target_app, execution, turn, task) WHERE place = 2 AND kind = 5;

CREATE TABLE received (
    store TEXT NOT NULL,
    message INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    app TEXT NOT NULL,
    PRIMARY KEY (store, message)
) WITHOUT ROWID;
CREATE INDEX received_from ON received (namespace, app, store);
