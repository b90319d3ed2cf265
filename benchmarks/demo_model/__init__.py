"""How the committed demo model and its predictor were made."""
