"""A deployment of five apps and three kinds of SDKs under faults; see `__main__`."""
