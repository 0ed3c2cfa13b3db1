"""The rules of workflows and entities as pure functions over values, from commands and arrivals to changes.

It must not know I/O, clocks, randomness, the store or the wire format of any SDK.
"""
