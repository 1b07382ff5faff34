"""Side effects of steering, measured in base and fine-tuned models whose language is known."""
