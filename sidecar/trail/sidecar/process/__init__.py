"""The sidecar's container from outside: process 1, which starts the sidecar anew, its cores, its signals.
Comes up with the standard library alone.
"""
