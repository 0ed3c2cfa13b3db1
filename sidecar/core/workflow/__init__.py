"""The rules of one workflow instance: its turns, calls, children, pauses, stalls, and its rewind and rerun.

It must not know entities, nor who asks: commands of clients and arriving reminders are decided above it.
"""
