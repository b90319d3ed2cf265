"""How vLLM comes to run TRAIL: plugin, configuration, what it needs of vLLM and which features it refuses.
vLLM calls `plugin.register` in each of its processes.
"""
