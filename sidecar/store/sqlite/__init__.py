"""Owns the store in one SQLite file: its schema and migrations, its statements, its thread, its copies and upkeep.

It must not know more of the sidecar than `store.protocol` and the values of the core; whoever wires it names it once.
"""
