"""The sidecar's parts in a world that is made up: everything comes from a seed."""
