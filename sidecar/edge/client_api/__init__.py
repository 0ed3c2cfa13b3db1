"""Owns what clients of Dapr call beside the workflow SDKs' service: of `dapr.proto.runtime.v1.Dapr`, what is served.

It must not know the rules behind a call, or what carries it: a workflow call becomes one of `TaskHubSidecarService`.
"""
