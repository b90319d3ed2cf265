"""Pressure out to Redis, c in from it.
A thread of its own; without Redis nothing else changes.
"""
