"""Benchmark reports: one self-contained HTML page from results.json."""
