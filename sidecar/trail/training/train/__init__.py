"""`trail train`: a predictor from a recording."""
