"""A decoder of transformers: load it, read activations, score, steer chosen tokens, generate."""
