"""Shadow mode: what a policy would gain, by replaying the sidecar's decision log in the simulator."""
