"""Contracts between processes: names, keys, the frame ring, the board, events and gRPC messages."""
