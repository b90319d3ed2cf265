"""The controller of c beside the best c that never changes, on simulated engines."""
