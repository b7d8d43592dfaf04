"""The ways to make knowledge: each module is one implementation of `contracts.ports.KnowledgeBackend`."""
