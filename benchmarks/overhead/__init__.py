"""What TRAIL costs the engine: throughput, engine CPU time, and the time of each of its parts."""
