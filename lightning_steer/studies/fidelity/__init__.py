"""What steering moves besides what it was meant to move, in base and fine-tuned models whose language is known."""
