"""How good predictors are: against the paper's recipe, the floor, and by the time that a row takes."""
