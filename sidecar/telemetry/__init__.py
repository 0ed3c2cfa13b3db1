"""Owns what is measured of a sidecar, under which names, and how it is written for those who collect it.

It must not know how anything works that it measures: it is shown what was committed or has ended, or looks at it.
"""
