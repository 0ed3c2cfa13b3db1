"""Owns `TaskHubSidecarService`: the requests of clients and workers, the streams of work, and the answers in bytes.

It must not know the rules behind a call: a handler reads the request, asks a service, and writes the answer.
"""
