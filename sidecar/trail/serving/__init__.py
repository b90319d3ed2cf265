"""How vLLM and the sidecar are started, watched and stopped together.
`trail serve`, the benchmark and experiments use it.
"""
