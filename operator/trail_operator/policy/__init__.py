"""The custom resource TrailPolicy: how it is read and checked, and which one applies to a workload.
Pure; everybody may call it.
"""
