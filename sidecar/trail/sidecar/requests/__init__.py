"""Requests as the sidecar knows them: the engine's events, columns of open requests, one's timeline.
The loop writes them.
"""
