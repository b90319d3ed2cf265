"""Looking at what TRAIL does: the demo under load, traces and metrics in one page, without a collector."""
