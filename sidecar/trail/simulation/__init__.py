"""A vLLM engine, simulated iteration by iteration, under the policies that the real one runs."""
