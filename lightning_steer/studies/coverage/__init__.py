"""How often intervals hold the true value, and how often certificates are false: simulated for every kind."""
