"""Predictors: bins, refinement, probe, prompt predictor, and the artefact they are kept in."""
