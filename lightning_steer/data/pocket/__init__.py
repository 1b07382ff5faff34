"""The pocket language: generated text whose every probability is known."""
