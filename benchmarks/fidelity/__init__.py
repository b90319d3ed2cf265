"""The simulator against real vLLM, arm by arm, on the requests of one benchmark."""
