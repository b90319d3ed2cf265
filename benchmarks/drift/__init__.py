"""Whether a bad probe is found and a good one left alone: `predict.quality` over simulated traffic."""
