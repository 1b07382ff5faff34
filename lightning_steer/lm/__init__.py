"""A decoder of transformers: loaded, read, scored, steered at chosen tokens, and continued."""
