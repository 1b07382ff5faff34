"""The pocket language's tasks of the arena, as contrast pairs: behaviours, traits, and markers' labels."""

from lightning_steer.data.behaviours.pairs import ContrastPair
from lightning_steer.data.pocket import behaviours, tasks
from lightning_steer.data.pocket.items import stereotype_items
from lightning_steer.data.pocket.prompts import behaviour_items, task_prompts
from lightning_steer.data.pocket.stereotypes import BIAS_TYPES

LANGUAGE = (*behaviours.NAMES, *BIAS_TYPES, *tasks.NAMES)
"""Towards a behaviour; away from a stereotype; from the label that careless markers write towards the true one."""
PAIRS, PER_TOPIC, TOPICS = 100, 5, 20


def pairs(task: str, seed: int, count: int = PAIRS) -> list[ContrastPair]:
    """Return at most ``count`` different pairs of a task, the same for the same seed."""
    if task in behaviours.NAMES:
        items = behaviour_items(task, -(-count // TOPICS), seed)
        rows = [ContrastPair(item.prompt, item.positive, item.negative) for item in items]
    elif task in BIAS_TYPES:
        chosen = [item for item in stereotype_items(seed=seed) if item.bias_type == task]
        every = max(1, len(chosen) // count)  # of all targets, which come in order
        rows = [
            ContrastPair(item.prompt, item.anti_stereotype, item.stereotype) for item in chosen[seed % every :: every]
        ]
    else:
        prompts = task_prompts(task, 2 * count, seed, careless=1.0)
        rows = [ContrastPair(p.prompt, p.labels[p.label], p.labels[p.pull]) for p in prompts if p.label != p.pull]
    return list(dict.fromkeys(rows))[:count]
