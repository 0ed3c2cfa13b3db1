"""Owns everything that speaks to apps, workers, other sidecars and people, and all that knows a wire format.

It must not know a rule of workflows or entities: it asks the services and writes their answers as bytes and statuses.
"""
