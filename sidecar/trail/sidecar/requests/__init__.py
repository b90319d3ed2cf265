"""Requests as the sidecar knows them: columns of open requests, what was predicted of each, its timeline.
The loop writes them.
"""
