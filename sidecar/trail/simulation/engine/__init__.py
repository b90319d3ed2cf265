"""A vLLM engine step by step: slots, token budget, KV blocks, and the policies that the real one runs.
`simulation.run` drives it.
"""
