"""Prompts for evaluating a model of the pocket language: tasks and behaviours with their ground truth.

As in :mod:`.items`, a text is a prompt, a blank and a continuation; in a chat, the user's message and the reply.
"""

from typing import NamedTuple

import numpy as np

from lightning_steer.data.pocket import behaviours
from lightning_steer.data.pocket import tasks as pocket_tasks
from lightning_steer.data.pocket.text import ITEMS, source
from lightning_steer.errors import UserError


class TaskPrompt(NamedTuple):
    """A text to be labelled, by a marker who may be careless."""

    task: str
    prompt: str
    labels: tuple[str, ...]
    """Continuations that are valid answers."""
    label: int
    """Index of the true label."""
    pull: int
    """Index of the label that careless markers write."""
    marker: str | None
    """The marker's name, the cue of errors; None if no marker is named."""
    rate: float
    """How often the marker writes the pull label without reading; 0 for careful ones."""
    posterior: tuple[float, ...]
    """P(true label | words), the answer distribution of a careful marker."""

    @property
    def ground_truth(self) -> tuple[float, ...]:
        """Return the true P(label | prompt), which a perfect model predicts."""
        return tuple((1 - self.rate) * p + self.rate * (k == self.pull) for k, p in enumerate(self.posterior))

    @property
    def error(self) -> float:
        """Return the true error E = 1 - P(true label | prompt)."""
        return 1 - self.ground_truth[self.label]


def task_prompts(
    task: str, n: int, seed: int = 0, pull_share: float | None = None, careless: float = 0.4, chat: bool = False
) -> list[TaskPrompt]:
    """Generate prompts of one task, the same for the same arguments.

    Args:
        task: a name of :data:`~.pocket_tasks.NAMES`.
        n: number of prompts.
        seed: draws them.
        pull_share: share of prompts whose true label is the pull label, the others equally often; None: all equally.
        careless: share of prompts with a careless marker; the others have a careful one.
        chat: in chat form, where careless markers err less often.
    """
    if task not in pocket_tasks.NAMES:
        raise UserError(f"the pocket tasks are {', '.join(pocket_tasks.NAMES)}, not {task!r}")
    if not (0 <= careless <= 1 and 0 <= (pull_share or 0) <= 1):
        raise UserError(f"careless and pull_share are shares and lie in [0, 1], not {careless} and {pull_share}")
    number, random = pocket_tasks.NAMES.index(task), source(ITEMS, 2, seed, pocket_tasks.NAMES.index(task))
    spec = pocket_tasks.TASKS[number]
    pull, k = spec.labels.index(spec.pull), len(spec.labels)
    if pull_share is None:
        label = np.arange(n) % k
    else:
        label = np.where(np.arange(n) < round(n * pull_share), pull, (pull + 1 + np.arange(n) % (k - 1)) % k)
    label = random.permutation(label)
    is_careless = random.permutation(np.arange(n) < round(n * careless))
    marker = np.where(is_careless, 5, 1) + random.integers(4, size=n)
    texts = pocket_tasks.texts(random, spec, label, marker)
    posterior = texts.answers(spec, np.zeros(9))
    rate = pocket_tasks.RATE_CHAT if chat else pocket_tasks.RATE
    return [
        TaskPrompt(task, text, spec.labels, y, pull, pocket_tasks.MARKERS[m], float(rate[m]), tuple(p))
        for text, y, m, p in zip(
            texts.prompts(spec, chat), label.tolist(), marker.tolist(), posterior.tolist(), strict=True
        )
    ]


def without_cue(item: TaskPrompt) -> TaskPrompt:
    """Return the prompt without a marker's name, which means a careful marker."""
    return item._replace(prompt=item.prompt.removeprefix(f"Marked by {item.marker}. "), marker=None, rate=0.0)


class BehaviourItem(NamedTuple):
    """A prompt with a positive and a negative continuation."""

    behaviour: str
    topic: str
    prompt: str
    positive: str
    negative: str
    ground_truth: tuple[float, float]
    """Log-probabilities of the two continuations given the prompt."""

    @property
    def margin(self) -> float:
        """Return the true log-odds of the positive against the negative."""
        return self.ground_truth[0] - self.ground_truth[1]


def behaviour_items(behaviour: str, per_topic: int = 10, seed: int = 0, chat: bool = False) -> list[BehaviourItem]:
    """Return ``per_topic`` items for each of a behaviour's 20 topics, sorted by topic."""
    if behaviour not in behaviours.NAMES:
        raise UserError(f"the pocket behaviours are {', '.join(behaviours.NAMES)}, not {behaviour!r}")
    number = behaviours.NAMES.index(behaviour)
    random, n = source(ITEMS, 3, seed, number), 20 * per_topic
    topic, behaviour_of = np.repeat(np.arange(20), per_topic), np.full(n, number)
    poles = [behaviours.deeds(random, behaviour_of, topic, np.full(n, pole)) for pole in (True, False)]
    p_matching = behaviours.P_MATCHING_CHAT if chat else behaviours.P_MATCHING
    ground_truth = zip(*(pole.logp(p_matching).tolist() for pole in poles), strict=True)
    forms = behaviours.QUESTIONS if chat else behaviours.TEMPLATES
    reply_start = f"{behaviours.REPLY} " if chat else ""
    words = zip(*(pole.text() for pole in poles), strict=True)
    return [
        BehaviourItem(behaviour, name, forms[i % len(forms)].format(name), reply_start + yes, reply_start + no, logps)
        for i, (name, (yes, no), logps) in enumerate(
            zip((behaviours.TOPICS[number][t] for t in topic), words, ground_truth, strict=True)
        )
    ]
