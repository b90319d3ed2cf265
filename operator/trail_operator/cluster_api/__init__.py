"""The Kubernetes API as the operator uses it: objects by path, versions, the lease.
Every other room may call it; it knows none of them.
"""
