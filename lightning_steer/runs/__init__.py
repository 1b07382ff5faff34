"""A run and its record: what it was fitted to, with which settings, kept whole or not at all."""
