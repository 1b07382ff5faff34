"""Behaviours: prompts with a positive and a negative continuation."""
