"""What runs inside vLLM: plugin entry point, self-check, export hook, scheduler."""
