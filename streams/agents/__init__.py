"""The faust agents of the stateless stages (encode, augment): one file a role, each agent at most ten lines."""
