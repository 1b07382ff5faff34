"""Summarise a card in a few lines for a terminal: method, sites, effect, side effects."""

from lightning_steer.report.labels import WORDS
from lightning_steer.report.tables import Estimate, cell
from lightning_steer.vectors.card import Card


def summary(card: Card) -> str:
    """Return the card as text: a line for the method, one for each estimate with its interval, then the warnings."""
    places = ", ".join(f"{site.part} {site.layer}" if site.layer is not None else site.module for site in card.sites)
    model = f" of {card.model.name}" if card.model else ""
    lines = [f"{card.method} at {places}{model}, strength {card.strength.value:g} ({card.strength.units})"]
    text_drift = {name: estimate for name, estimate in card.drift.items() if name.startswith("text_")}
    other_drift = {name: estimate for name, estimate in card.drift.items() if name not in text_drift}
    parts = {"effect": card.effect, "side effects on other text": other_drift, "text at held-out prompts": text_drift}
    for title, estimates in parts.items():
        if not estimates:
            lines.append(f"{title}: not measured")
            continue
        lines.append(f"{title}, 95 % intervals, {_counted(next(iter(estimates.values())))}:")
        lines += [f"  {WORDS.get(name, name)}: {cell(estimate)}" for name, estimate in estimates.items()]
    return "\n".join([*lines, *(f"warning: {text}" for text in card.warnings)])


def _counted(estimate: Estimate) -> str:
    clusters = estimate.get("clusters")
    return f"n {estimate['n']}" + (f" in {clusters} clusters" if clusters else "")
