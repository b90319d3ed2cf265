"""The one loop: events and frames in, predictions, ranks on the board, the heartbeat.
One thread; `sidecar` assembles it.
"""
