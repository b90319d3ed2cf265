"""What is done to a pod: whether and how it is injected, as the webhook answers.
Pure but for `webhook`; `reconcile`, `jobs` and the `trail` commands ask it what it would do.
"""
