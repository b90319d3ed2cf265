"""`trail profile`: runs vLLM on a data set of prompts and records the model's hidden states."""
