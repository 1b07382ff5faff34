"""Prompts for evaluating a model of the pocket language: tasks and behaviours, each with its planted truth.

As in :mod:`.pocket_items`: a prompt, a blank, a continuation; in a chat what the user says and how the reply goes.
"""

from typing import NamedTuple

import numpy as np

from lightning_steer.data.pocket import behaviours
from lightning_steer.data.pocket import tasks as pocket_tasks
from lightning_steer.data.pocket.text import ITEMS, source


class TaskPrompt(NamedTuple):
    """A text to be labelled, by a marker who may be careless."""

    task: str
    prompt: str
    labels: tuple[str, ...]
    """The continuations that are answers."""
    label: int
    """The true one's index."""
    pull: int
    """The index of the one that careless markers write."""
    marker: str | None
    """The cue; None if nobody is named."""
    rate: float
    """How often the marker writes the pull label without reading; 0 for careful ones."""
    posterior: tuple[float, ...]
    """P(true label | words): what a careful marker makes of the text."""

    @property
    def planted(self) -> tuple[float, ...]:
        """P(label | prompt), of which a perfect model's answer is made."""
        return tuple((1 - self.rate) * p + self.rate * (k == self.pull) for k, p in enumerate(self.posterior))

    @property
    def error(self) -> float:
        """Planted error E = 1 - P(true label | prompt)."""
        return 1 - self.planted[self.label]


def task_prompts(
    task: str, n: int, seed: int = 0, pull_share: float | None = None, careless: float = 0.4, chat: bool = False
) -> list[TaskPrompt]:
    """Fresh prompts of one task, the same for the same arguments.

    Args:
        task: a name of :data:`~.pocket_tasks.NAMES`.
        n: number of prompts.
        seed: draws them.
        pull_share: share of prompts whose true label is the pull label, the others equally often; null: all equally.
        careless: share of prompts with a careless marker; the others have a careful one.
        chat: in chat form, where the careless are less so.
    """
    if task not in pocket_tasks.NAMES:
        raise ValueError(f"the pocket tasks are {', '.join(pocket_tasks.NAMES)}, not {task!r}")
    if not (0 <= careless <= 1 and 0 <= (pull_share or 0) <= 1):
        raise ValueError(f"careless and pull_share are shares and lie in [0, 1], not {careless} and {pull_share}")
    number, random = pocket_tasks.NAMES.index(task), source(ITEMS, 2, seed, pocket_tasks.NAMES.index(task))
    known = pocket_tasks.TASKS[number]
    pull, k = known.labels.index(known.pull), len(known.labels)
    if pull_share is None:
        label = np.arange(n) % k
    else:
        label = np.where(np.arange(n) < round(n * pull_share), pull, (pull + 1 + np.arange(n) % (k - 1)) % k)
    label = random.permutation(label)
    lax = random.permutation(np.arange(n) < round(n * careless))
    marker = np.where(lax, 5, 1) + random.integers(4, size=n)
    drawn = pocket_tasks.texts(random, known, label, marker)
    posterior = drawn.answers(known, np.zeros(9))
    rate = pocket_tasks.RATE_CHAT if chat else pocket_tasks.RATE
    return [
        TaskPrompt(task, text, known.labels, y, pull, pocket_tasks.MARKERS[m], float(rate[m]), tuple(p))
        for text, y, m, p in zip(
            drawn.prompts(known, chat), label.tolist(), marker.tolist(), posterior.tolist(), strict=True
        )
    ]


def without_cue(item: TaskPrompt) -> TaskPrompt:
    """The same text with nobody named, which means a careful marker."""
    return item._replace(prompt=item.prompt.removeprefix(f"Marked by {item.marker}. "), marker=None, rate=0.0)


class BehaviourItem(NamedTuple):
    """A prompt with a matching and a non-matching continuation."""

    behaviour: str
    topic: str
    prompt: str
    positive: str
    negative: str
    planted: tuple[float, float]
    """Log-probabilities of the two continuations given the prompt."""

    @property
    def margin(self) -> float:
        """Planted log-probability of the positive over the negative."""
        return self.planted[0] - self.planted[1]


def behaviour_items(behaviour: str, per_topic: int = 10, seed: int = 0, chat: bool = False) -> list[BehaviourItem]:
    """``per_topic`` items for each of a behaviour's 20 topics, a topic's items one after the other."""
    if behaviour not in behaviours.NAMES:
        raise ValueError(f"the pocket behaviours are {', '.join(behaviours.NAMES)}, not {behaviour!r}")
    number = behaviours.NAMES.index(behaviour)
    random, n = source(ITEMS, 3, seed, number), 20 * per_topic
    topic, of = np.repeat(np.arange(20), per_topic), np.full(n, number)
    poles = [behaviours.deeds(random, of, topic, np.full(n, pole)) for pole in (True, False)]
    p = behaviours.P_MATCHING_CHAT if chat else behaviours.P_MATCHING
    planted = zip(*(pole.logp(p).tolist() for pole in poles), strict=True)
    forms = behaviours.QUESTIONS if chat else behaviours.TEMPLATES
    begun = f"{behaviours.REPLY} " if chat else ""
    words = zip(*(pole.text() for pole in poles), strict=True)
    return [
        BehaviourItem(behaviour, name, forms[i % len(forms)].format(name), begun + yes, begun + no, exact)
        for i, (name, (yes, no), exact) in enumerate(
            zip((behaviours.TOPICS[number][t] for t in topic), words, planted, strict=True)
        )
    ]
