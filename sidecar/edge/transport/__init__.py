"""Owns the boundary at which calls are bytes: its words and contracts, the queue of what is sent, and listening.

It must not know which library carries the bytes, or what they mean.
"""
