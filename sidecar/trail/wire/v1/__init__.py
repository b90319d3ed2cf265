"""Generated from `protos/trail/v1/trail.proto` by `protos/generate.py`."""
