"""Owns the link between two sidecars at both of its ends: handshake, messages and their answers, calls sent on.

It must not know what a message or a call does: it hands them to a service, or to a handler that it was given.
"""
