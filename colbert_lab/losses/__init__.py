"""Training losses: tensors of scores in, a scalar out."""
