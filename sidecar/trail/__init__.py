"""TRAIL for vLLM: serve the shortest predicted remaining work first, and fail open."""

__version__ = "0.1.0"
