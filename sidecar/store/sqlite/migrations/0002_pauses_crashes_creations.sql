-- The number of the last pause, or end of one, that a child has obeyed.
ALTER TABLE instances ADD COLUMN obeyed INTEGER NOT NULL DEFAULT 0;

-- Deliveries of a turn or a batch that ended with the loss of the worker, since the last that was answered.
ALTER TABLE instances ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN last_error TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;

-- Children whose creation, or rewind, is not delivered yet: who removes their parent waits for that.
CREATE INDEX reminders_creations ON reminders (owner) WHERE kind IN (4, 11);
