"""Evaluation: the same training with and without knowledge, with controls, over seeds, and a report that says what holds."""
