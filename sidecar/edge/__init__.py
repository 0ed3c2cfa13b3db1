"""The edges: everything that speaks to workers, clients and peers, and the only place that knows gRPC."""
