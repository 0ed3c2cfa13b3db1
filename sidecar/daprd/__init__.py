"""Owns the `daprd` command: flags and files of Dapr as settings, and how the sidecars of one machine find each other.

It must not know how a sidecar does what it is set to.
"""
