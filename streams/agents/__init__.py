"""The faust agents: one file a role, each agent at most ten lines."""
