"""A drill under load: the real sidecar is killed, hangs and comes back while vLLM serves."""
