"""Implementations of `contracts.ports.VectorStore`."""
