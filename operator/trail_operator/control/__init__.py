"""The loop on c: pressure out of Redis, the next c of every workload, back into Redis.
`reconcile` tells it which workloads there are, through `loop_port`.
"""
