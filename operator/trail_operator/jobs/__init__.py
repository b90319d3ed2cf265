"""What runs once, in a pod of its own: certificates, Redis' secret, the chart's test, uninstalling.
The charts name these modules; nothing else calls them.
"""
