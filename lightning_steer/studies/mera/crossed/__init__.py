"""A crossed design over probe, penalty, direction and dose, in worlds whose truth is known."""
