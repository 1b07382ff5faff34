"""Which form of steering is optimal for what: theorems, worlds with exact answers, and the pocket models."""
