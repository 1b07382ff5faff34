"""Every steering method on the same tasks, at equal damage: ``make arena``."""
