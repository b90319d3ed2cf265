"""Scheduling maths: pure functions of state, NumPy only, without I/O and without a clock."""
