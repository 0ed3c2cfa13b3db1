"""Owns the HTTP port of one app: its sockets and their limits, the routes, and their JSON.

It must not know workflows or gRPC: the sidecar is a view that it asks.
"""
