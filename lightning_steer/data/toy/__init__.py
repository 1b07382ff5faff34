"""Toy worlds of attributes, whose truth is known."""
