"""Fitted maps as files with a card, whatever the method; steering with them; exports and imports for other tools.

``python -m lightning_steer export SOURCE TARGET``. From Python: :func:`of`, :func:`save`, :func:`load`, :func:`edit`.
"""

from lightning_steer.vectors.card import Card, Model, Site, Strength
from lightning_steer.vectors.constant import by_layer
from lightning_steer.vectors.file import SteeringVector, load, save
from lightning_steer.vectors.make import of
from lightning_steer.vectors.steer import edit

__all__ = ["Card", "Model", "Site", "SteeringVector", "Strength", "by_layer", "edit", "load", "of", "save"]
