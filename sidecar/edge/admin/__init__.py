"""Owns what a person or a probe asks over gRPC: the admin service, with the care of the store, and health.

It must not know how an answer is found, nor write to any workflow itself: it asks the services and the store.
"""
