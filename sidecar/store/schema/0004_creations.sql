-- Children whose creation, or rewind, is not delivered yet: who removes their parent waits for that.
CREATE INDEX reminders_creations ON reminders (owner) WHERE kind IN (4, 11);
