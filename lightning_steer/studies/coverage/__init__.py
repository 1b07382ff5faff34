"""Simulate how often intervals contain the true value, and how often certificates are false, for every kind."""
