"""Owns who may connect and call: certificates, tokens, and the places for calls and workers.

It must not know what a call is about: it stands around handlers and looks at metadata and sizes alone.
"""
