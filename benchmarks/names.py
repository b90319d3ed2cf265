"""Environment variables that experiments alone read; the product's are in `trail.wire.names`."""

ENV_SHARED = "TRAIL_SHARED"
"""Directory of optional data (`data/`: traces, recorded lengths, models) and tools (`tools/`)."""
ENV_NODE_CPUS = "TRAIL_NODE_CPUS"
"""Cores that pods of the real node may use."""
ENV_NODE_ROLES = "TRAIL_NODE_ROLES"
"""Images that the real node is given, separated by spaces; empty: all."""
