"""Roles on kafka-python, each a loop in a thread: plan, extract, cluster, join, train, rank, and the versions of augment."""
