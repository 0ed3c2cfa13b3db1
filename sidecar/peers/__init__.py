"""Owns what leaves for other apps: a queue for each, with its order and pauses, and the directory of addresses.

It must not know what carries a message: a link takes a batch and returns an answer to each message.
"""
