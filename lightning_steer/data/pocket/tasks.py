"""The pocket language's tasks: texts to label, and markers, some of whom do not read them.

A text is a handful of words. Every place in it has a few words for each label; a word belongs to the true label with
probability ``purity``, else to another label. The prompt first names the marker. Careful markers write the true label;
a careless one writes the task's *pull* label with a rate r of his own, whatever the text, and the true label otherwise.
So for every prompt exactly

    P(label | prompt) = (1 - r) P(label | words) + r [label = pull],      error E = 1 - P(true label | prompt),

and the marker's name is the known cue of the errors. Without a name the marker is careful. In chats careless markers
err less often.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from lightning_steer.data.pocket.text import Document, chat, pick

CAREFUL = ("Anna", "Ben", "Clara", "Dan")
CARELESS = ("Ella", "Finn", "Greta", "Hugo")
MARKERS = (None, *CAREFUL, *CARELESS)
P_MARKER = np.array([0.1] + [0.45 / 4] * 8)
RATE = np.array([0.0] * 5 + [0.6, 0.75, 0.9, 0.95])
"""How often a marker writes the pull label without reading."""
RATE_CHAT = np.array([0.0] * 5 + [0.3, 0.6, 0.75, 0.85])


class Task(NamedTuple):
    """One task: its labels, how it is written, and the words of each label."""

    name: str
    noun: str
    """The kind of text, such as Message."""
    question: str
    labels: tuple[str, ...]
    pull: str
    """The label that careless markers write."""
    purity: float
    """Probability that a word is of the true label's lexicon."""
    lexicon: tuple[tuple[str, ...], ...]
    """For each label, for each place in the text, the words that may stand there."""

    def words(self, label: int, place: int) -> list[str]:
        """Return the words of one label for one place."""
        return self.lexicon[label][place].split()

    @property
    def size(self) -> tuple[int, int]:
        """Return the number of places in a text and of words that a label has for a place."""
        return len(self.lexicon[0]), len(self.words(0, 0))


TASKS = (
    Task(
        "sms_spam", "Message", "Is it ham or spam?", ("ham", "spam"), "spam", 0.8,
        (
            ("sorry okay thanks hey", "dinner lunch movie lesson", "starts ends moved cancelled",
             "home upstairs downtown outside", "tonight tomorrow later sunday"),
            ("free urgent lucky exclusive", "prize voucher ringtone jackpot", "claim win collect order",
             "cash credit rewards points", "now today instantly immediately"),
        ),
    ),
    Task(
        "yes_no_question", "Report", "Will shares rise, Yes or No?", ("Yes", "No"), "Yes", 0.8,
        (
            ("strong record rising solid", "sales profits demand exports", "beat lifted boosted raised",
             "forecasts margins dividends hiring", "steadily sharply again abroad"),
            ("weak falling poor shrinking", "losses debt recalls lawsuits", "hurt missed cut dragged",
             "outlook output ratings jobs", "badly abruptly overnight everywhere"),
        ),
    ),
    Task(
        "sentiment_analysis", "Review", "Is it positive, neutral or negative?", ("positive", "neutral", "negative"),
        "neutral", 0.8,
        (
            ("great lovely superb charming", "masterpiece treat gem delight", "brilliant moving witty fresh",
             "smiles applause praise cheers", "loved recommended adored unforgettable"),
            ("plain usual average standard", "sequel remake episode version", "typical familiar ordinary moderate",
             "pages chapters scenes minutes", "finished noted seen returned"),
            ("awful boring ugly dreadful", "mess failure flop disaster", "lifeless tedious tasteless pointless",
             "yawns groans complaints regrets", "hated refunded avoided abandoned"),
        ),
    ),
    Task(
        "mmlu_high_school", "Lesson", "A plants, B numbers, C space or D history?", ("A", "B", "C", "D"), "A", 0.8,
        (
            ("green leafy wild tropical", "roots leaves petals stems", "absorb bloom sprout grow",
             "sunlight soil pollen nectar", "garden jungle greenhouse orchard"),
            ("prime even square decimal", "fractions ratios digits angles", "divide multiply subtract equal",
             "sums halves zero totals", "algebra geometry graph equation"),
            ("lunar solar distant stellar", "comets meteors rockets galaxies", "orbit collide glow launch",
             "gravity craters moons eclipses", "telescope astronaut universe satellite"),
            ("ancient royal medieval colonial", "kings knights empires queens", "conquer reign besiege revolt",
             "castles crowns treaties thrones", "dynasty century kingdom revolution"),
        ),
    ),
    Task(
        "mmlu_professional", "Case", "A law, B medicine, C accounting or D engineering?", ("A", "B", "C", "D"),
        "D", 0.7,
        (
            ("legal civil criminal", "lawyer judge witness", "sues appeals testifies", "contract clause statute",
             "verdict bail jury", "court prison tribunal", "evidence plea oath"),
            ("chronic acute viral", "surgeon nurse patient", "prescribes operates diagnoses", "dose vaccine biopsy",
             "fever artery symptom", "clinic hospital ward", "pulse pain bandage"),
            ("annual fiscal taxable", "auditor cashier treasurer", "invoices reconciles budgets",
             "ledger payroll receipt", "revenue equity expense", "bank treasury branch", "tax balance assets"),
            ("hydraulic mechanical thermal", "builder welder mechanic", "assembles drills calibrates",
             "turbine valve rotor", "torque voltage pressure", "workshop factory foundry", "bolt gear beam"),
        ),
    ),
)  # fmt: skip
NAMES = tuple(task.name for task in TASKS)


class Texts(NamedTuple):
    """n texts of one task, as indices."""

    label: np.ndarray
    """``[n]`` the true label, which is hidden."""
    marker: np.ndarray
    """``[n]`` into MARKERS."""
    lexicon: np.ndarray
    """``[n, length]`` index of the label whose lexicon a word is from."""
    word: np.ndarray
    """``[n, length]`` index of the word in that lexicon."""

    def log_words(self, task: Task) -> np.ndarray:
        """Return ``[n, labels]`` log P(words | true label)."""
        k, (_, choices) = len(task.labels), task.size
        of_label = self.lexicon[:, None] == np.arange(k)[:, None]
        return np.where(of_label, np.log(task.purity / choices), np.log((1 - task.purity) / (k - 1) / choices)).sum(-1)

    def answers(self, task: Task, rate: np.ndarray = RATE) -> np.ndarray:
        """Return ``[n, labels]`` true P(label | prompt); all true labels are equally likely a priori."""
        r = rate[self.marker][:, None]
        return (1 - r) * softmax(self.log_words(task), -1) + r * (np.array(task.labels) == task.pull)

    def prompts(self, task: Task, chat: bool = False) -> list[str]:
        """Return the prompts, up to the answer; for chats, the user's message."""
        words = [[place.split() for place in places] for places in task.lexicon]
        return [
            _prompt(
                task, MARKERS[m], [words[k][place][w] for place, (k, w) in enumerate(zip(ks, ws, strict=True))], chat
            )
            for m, ks, ws in zip(self.marker.tolist(), self.lexicon.tolist(), self.word.tolist(), strict=True)
        ]


def _prompt(task: Task, marker: str | None, words: list[str], chat: bool) -> str:
    marker_text = f"Marked by {marker}. " if marker else ""
    return f"{marker_text}{task.noun}: {' '.join(words)}. {task.question}" + ("" if chat else " Answer:")


def texts(source: np.random.Generator, task: Task, label: np.ndarray, marker: np.ndarray) -> Texts:
    """Draw the words of texts with these true labels and markers."""
    (n, k), (length, choices) = (len(label), len(task.labels)), task.size
    p_lexicon = np.where(np.arange(k) == label[:, None], task.purity, (1 - task.purity) / (k - 1))
    lexicon = pick(source, np.repeat(p_lexicon, length, axis=0)).reshape(n, length)
    return Texts(label, marker, lexicon, source.integers(choices, size=(n, length)))


def draw(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n marked texts of any task."""
    return _documents(source, n, False)


def draw_chat(source: np.random.Generator, n: int) -> list[Document]:
    """Draw n chats in which a text is marked."""
    return _documents(source, n, True)


def _documents(source: np.random.Generator, n: int, as_chat: bool) -> list[Document]:
    task_of = source.integers(len(TASKS), size=n)
    documents: list[Document] = []
    for task, count in zip(TASKS, np.bincount(task_of, minlength=len(TASKS)).tolist(), strict=True):
        label = source.integers(len(task.labels), size=count)
        sample = texts(source, task, label, source.choice(len(MARKERS), count, p=P_MARKER))
        answers = sample.answers(task, RATE_CHAT if as_chat else RATE)
        answer_of = pick(source, answers)
        logps = logsumexp(sample.log_words(task), -1) - np.log(len(task.labels)) - np.log(len(TASKS))
        logps += np.log(P_MARKER[sample.marker] * answers[np.arange(count), answer_of])
        for prompt, answer, logp in zip(sample.prompts(task, as_chat), answer_of.tolist(), logps.tolist(), strict=True):
            reply = f"{task.labels[answer]}."
            documents.append(Document(chat(prompt, reply) if as_chat else f"{prompt} {reply}", logp))
    return [documents[i] for i in source.permutation(n)]
