"""The closed form for M/G/1 beside exact results and a simulation of that queue."""
