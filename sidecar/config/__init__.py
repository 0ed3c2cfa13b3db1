"""The settings of a sidecar: their names, how they are read from flags, environment and files, and their checks.

It must not know who uses a setting, nor start anything.
"""
