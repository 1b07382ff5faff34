"""What a search chooses where the truth is known: how near it comes to the best, and whether its judgement holds."""
