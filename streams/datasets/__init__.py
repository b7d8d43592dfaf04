"""Readers of data sets: real ones that lie beside the project, and the sample that comes with it."""
