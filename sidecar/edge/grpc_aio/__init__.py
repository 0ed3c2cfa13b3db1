"""Owns the transport on grpc.aio: its servers and channels, and every option that is given to grpc.

It must not know what a message means or which methods exist, and no exception of grpc may leave it.
"""
