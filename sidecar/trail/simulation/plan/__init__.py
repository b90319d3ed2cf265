"""What queueing theory expects: the closed form (`mg1`) beside a simulation of that queue.
`trail plan` and `benchmarks.closed_form` use it.
"""
