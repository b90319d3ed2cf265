"""What the probe takes at any hidden size, by batch and number of threads."""
