"""The worker's side: hidden states of a step, from the model into the frame ring.
vLLM's worker calls `worker`; nothing here waits for anybody.
"""
