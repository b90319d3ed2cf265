"""The scheduler's side: the board read, requests put in order, room made for those that come first.
vLLM's engine core calls `scheduler`.
"""
