"""Roles that read with kafka-python, each a loop in a thread: train, join, rank, and the version keeping of augment."""
