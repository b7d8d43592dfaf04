"""Roles that read with kafka-python: train, join, rank, and the version keeping of augment. Each is a loop in a thread of its own."""
