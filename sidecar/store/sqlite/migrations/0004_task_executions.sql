-- What a worker calls the execution of an activity: each of its results carries it home.
ALTER TABLE open_calls ADD COLUMN task_execution TEXT NOT NULL DEFAULT '';

-- The number of the action that ended an execution.
ALTER TABLE instances ADD COLUMN ended_by INTEGER NOT NULL DEFAULT -1;
