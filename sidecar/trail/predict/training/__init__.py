"""How predictors are fitted and judged: what only `trail train`, `trail evaluate` and benchmarks run.
Nothing that runs in a pod imports it.
"""
