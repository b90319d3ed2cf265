"""`trail evaluate`: how well predictors foresee remaining lengths, as JSON, terminal table and HTML page."""
