"""The lab: demo model, benchmarks and reports, on the code that is deployed."""
