"""The rules of one entity: its inbox, its lock, the batches that workers run and what their answers change.

It must not know how operations reach it, nor which worker runs them.
"""
