"""Owns the work of the own workers: what of it waits, who gets it, what is out under a lease, and what comes back.

It must not know how a worker is connected or which SDK it runs: it is a name, limits and a function that sends.
"""
