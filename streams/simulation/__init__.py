"""Simulated readers: what the sample's clicks come from. Everything made here is labelled simulated wherever it is shown."""
