"""Contracts between processes: names, keys, the frame ring, the board and the gRPC messages."""
