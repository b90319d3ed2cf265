"""Metrics, traces and log records, by Prometheus and by OTLP.
Reads state and listens to timelines; whatever fails here costs the loop a counter.
"""
