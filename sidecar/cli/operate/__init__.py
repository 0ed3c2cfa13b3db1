"""What the commands about workflows and sidecars do: they ask a sidecar over its gRPC port, and write what it says.

It must not know the rules of workflows, nor how what it writes looks.
"""
