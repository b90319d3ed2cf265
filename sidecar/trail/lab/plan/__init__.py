"""What queueing theory expects: the closed form of `trail.policy.mg1`, a simulation of that queue, `trail
plan`."""
