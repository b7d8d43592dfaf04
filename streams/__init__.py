"""Moves records between stages: Kafka in, plain classes in the middle, Kafka out; wiring, embedded default, command line."""
