"""Owns what may be asked of a sidecar: by clients, workers that answer, other apps, and those who look after it.

It must not know the protocol it is asked in: it takes and returns values, and raises errors of core and store.
"""
