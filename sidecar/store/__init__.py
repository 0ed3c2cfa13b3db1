"""Owns where the state of one app is kept: the contract of a store, and the stores that keep it.

It must not know what a workflow means or who asks: it writes the changes that it is given, and reads them back.
"""
