"""Looking at what TRAIL does: an OTLP receiver without a collector."""
