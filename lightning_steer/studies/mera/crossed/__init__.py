"""Which probe, penalty, direction and dose repair errors: crossed, in worlds whose truth is known."""
