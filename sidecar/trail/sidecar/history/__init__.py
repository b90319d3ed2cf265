"""The timelines of open requests and of the last that ended, and who is told of them.
Written by the loop alone; other threads may read.
"""
