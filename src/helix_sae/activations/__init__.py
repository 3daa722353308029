"""Activations of a model: planned, stored in content-addressed shards or streamed, read, looked after."""
