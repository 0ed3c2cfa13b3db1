"""Owns the HTTP port of one app: its sockets and their limits, who may ask, the routes, and their JSON.

It must not know what a call does, or gRPC: the sidecar is a view that it asks, and handlers by path.
"""
