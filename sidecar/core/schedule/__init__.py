"""The rules of schedules: which times one has, what becomes of each, how a run of it begins.

It must not know who defines schedules, or what a workflow does.
"""
