"""How often a choice under several promises breaks one, and what it wins: simulated, beside Hoeffding's bounds."""
