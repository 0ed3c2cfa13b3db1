-- What a worker calls the execution of an activity: each of its results carries it home.
ALTER TABLE open_calls ADD COLUMN task_execution TEXT NOT NULL DEFAULT '';

-- The number of the action that ended an execution.
ALTER TABLE instances ADD COLUMN ended_by INTEGER NOT NULL DEFAULT -1;

-- Workers are not asked for the new history of a rewind: who was waits no more, and runs with the history that it has.
DELETE FROM history WHERE place = 1099511627776 AND key IN (SELECT key FROM instances WHERE rewind = 1);
UPDATE instances SET rewind = 2 WHERE rewind = 1;

-- The execution of the parent that waits for the answer of a child, if it is not the one that created the child.
ALTER TABLE instances ADD COLUMN parent_asked_by TEXT NOT NULL DEFAULT '';
