"""Experiments, each a question with its command; nothing here is installed, and nothing imports it."""
