-- Deliveries of a turn or a batch that ended with the loss of the worker, since the last that was answered.
ALTER TABLE instances ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN last_error TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
