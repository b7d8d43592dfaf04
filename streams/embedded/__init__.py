"""The embedded default of `reki up`: broker, vector store and roles on one machine, as supervised processes."""
