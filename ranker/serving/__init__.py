"""The ranker over HTTP, and its page."""
