"""Apps and their sidecars as processes of a developer's machine: their ports and variables, their output, their end.

It must not know what a sidecar does, beyond its settings and whether it is ready.
"""
