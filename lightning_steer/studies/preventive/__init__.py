"""Preventive steering of the narrow pocket model: side effect and lesson, beside their true values."""
