"""The transport on grpc.aio: servers and channels that move bytes, with no generated code.

It owns the translation between grpc's ways and the contracts of `transport`, and every option given to grpc.
It must not know what a message means or which methods exist. grpc's exceptions never leave it.
"""
