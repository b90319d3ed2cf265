"""`trail` on a cluster: status, enable, disable, c, explain-injection. Uses the operator's own decisions."""
