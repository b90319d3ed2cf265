"""Watches of policies, workloads and pods, and what follows from them: status, Events, withdrawals.
`command` starts it.
"""
