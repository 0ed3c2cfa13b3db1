"""What a person or a script reads of workflows and sidecars: times, tables, timelines, trees, and the same as data.

It must not know how anything is asked, nor that there is a terminal: its functions are given a width, and are pure.
"""
