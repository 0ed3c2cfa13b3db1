"""The commands that a person types: their flags, output and exit codes.

It must not know the rules of workflows, nor load what only a server needs before that is used.
"""
