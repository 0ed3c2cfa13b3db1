-- The number of the last pause, or end of one, that a child has obeyed.
ALTER TABLE instances ADD COLUMN obeyed INTEGER NOT NULL DEFAULT 0;
