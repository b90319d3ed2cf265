"""A load peak on real vLLM: TRAIL against first come, first served, at several loads and in a burst."""
