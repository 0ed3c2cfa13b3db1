-- What a worker gave to trace an execution by, to be given back with each of its turns.
ALTER TABLE instances ADD COLUMN orchestration_trace BLOB NOT NULL DEFAULT x'';
