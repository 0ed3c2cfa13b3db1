"""The rules of workflows as pure functions: no I/O, no clock, no randomness, no dialect."""
