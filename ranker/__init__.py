"""Ranking models, their training offline and online, scoring and serving."""
