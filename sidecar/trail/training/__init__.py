"""From prompts to a predictor: recordings of hidden states, training, and how good the result is.
`trail profile`, `trail train` and `trail evaluate` call it.
"""
