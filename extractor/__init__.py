"""From a request to knowledge: scenarios, prompts, language models behind one port, and what needs asking at all.

Knows nothing of Kafka, of vectors or of ranking; `streams` moves its records.
"""
