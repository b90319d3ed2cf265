"""What the engine tells the sidecar: requests, changes of their state, load.
`order` hands events in; a thread of its own sends them.
"""
