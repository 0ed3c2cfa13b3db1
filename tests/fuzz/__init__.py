"""Hostile input for everything that reads bytes of others: `make fuzz`, and `python -m tests.fuzz --help`."""
