"""Where examples of a behaviour come from: four kinds of files, responses of a model, and the pocket language."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lightning_steer import numbers
from lightning_steer.data.behaviours import examples as behaviour_examples
from lightning_steer.data.behaviours.examples import BehaviourExample
from lightning_steer.data.clusters import connected
from lightning_steer.data.pair_batches import in_chat
from lightning_steer.data.pocket import items as pocket_items
from lightning_steer.data.pocket import prompts as pocket_prompts
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged
from lightning_steer.resources import resource_path


class BehaviourSource(ABC):
    """Where the examples of one behaviour come from."""

    @abstractmethod
    def read(self) -> list[BehaviourExample]:
        """Read all examples; raises FileNotFoundError or ValueError."""

    def cluster(self, example: BehaviourExample) -> str:
        """Return the key that dependent examples share: their prompt, if any. They stay in one part of a split."""
        return example.origin

    def clusters(self, examples: Sequence[BehaviourExample], labels: bool) -> list[int]:
        """Return the cluster of each example, within which they are not independent, for intervals.

        Args:
            examples: one part of a split.
            labels: whether continuations are labels; sharing a label does not make examples dependent.
        """
        shared_keys = (() if labels else (example.continuations,) for example in examples)
        return connected([(self.cluster(example), *keys) for example, keys in zip(examples, shared_keys, strict=True)])

    def own_reference_texts(self) -> list[str]:
        """Return unrelated texts in the same language, to measure drift on; empty by default."""
        return []


class PairsFile(BehaviourSource):
    """JSON lines of ``{prompt, positive, negative}``, with ``behaviour`` if the file has several.

    Args:
        path: the file.
        only: the behaviour to keep; null if the file has only one.
    """

    def __init__(self, path: str, only: str | None = None) -> None:
        self.path, self.only = path, only

    def read(self) -> list[BehaviourExample]:
        """Read all examples of the behaviour."""
        examples = behaviour_examples.read_pairs(resource_path(self.path))
        names = list(dict.fromkeys(example.behaviour for example in examples))
        if self.only is None and len(names) > 1:
            raise UserError(f"{self.path} has the behaviours {', '.join(names)}: say which one with only")
        if self.only not in (None, *names):
            raise UserError(f"{self.path} has no behaviour {self.only!r}; it has {', '.join(names)}")
        return [example for example in examples if self.only in (None, example.behaviour)]


class HalvesFile(BehaviourSource):
    """A released file of ``"[INST] prompt [/INST] continuation"``: all of one polarity, then all of the other.

    Args:
        path: the file; both halves have the same prompts in the same order.
        behaviour: its name.
        first_half_positive: whether the first half shows the behaviour; nothing in the file says so.
        begin: what stands before the prompt.
        separator: what stands between prompt and continuation.
        keep_marks: leave ``begin`` and ``separator`` around the prompt, for a model that is read without its chat
            template; with ``chat`` they would stand there twice.
    """

    def __init__(
        self,
        path: str,
        behaviour: str,
        first_half_positive: bool,
        begin: str = "[INST]",
        separator: str = "[/INST]",
        keep_marks: bool = False,
    ) -> None:
        self.path, self.behaviour, self.first_half_positive = path, behaviour, first_half_positive
        self.begin, self.separator, self.keep_marks = begin, separator, keep_marks

    def read(self) -> list[BehaviourExample]:
        """Pair the first half's continuations with the second's."""
        examples = behaviour_examples.read_halves(
            self.path, self.behaviour, self.first_half_positive, self.begin, self.separator
        )
        if not self.keep_marks:
            return examples
        return [e._replace(prompt=f"{self.begin} {e.prompt} {self.separator}") for e in examples]


class ChoicesFile(BehaviourSource):
    """CAA's A/B questions.

    Args:
        path: the file.
        behaviour: its name.
    """

    def __init__(self, path: str, behaviour: str) -> None:
        self.path, self.behaviour = path, behaviour

    def read(self) -> list[BehaviourExample]:
        """Read all questions with their two answers."""
        return behaviour_examples.read_choices(self.path, self.behaviour)


class PersonaFile(ChoicesFile):
    """Anthropic's persona statements, answered with Yes or No.

    Args:
        path: the file.
        behaviour: its name.
    """

    def read(self) -> list[BehaviourExample]:
        """Read all statements with their two answers."""
        return behaviour_examples.read_personas(self.path, self.behaviour)


class ResponsesFile(BehaviourSource):
    """Responses that ``predict`` has written: those at one strength against those at another, where they differ.

    Args:
        path: ``responses.jsonl``.
        behaviour: its name.
        positive: strength of the responses that show the behaviour; null for unsteered ones.
        negative: strength of those that do not.
        model: the model whose responses they are; null for the first of the file.
    """

    @ranged
    def __init__(
        self,
        path: str,
        behaviour: str,
        positive: float | None,
        negative: float | None = None,
        model: str | None = None,
    ) -> None:
        self.path, self.behaviour, self.positive, self.negative, self.model = path, behaviour, positive, negative, model

    def read(self) -> list[BehaviourExample]:
        """Read the pairs of responses that differ."""
        columns = ("id", "prompt", "system", "model", "strength", "sample", "response")
        by_side: list[dict[str, tuple[str, str]]] = [{}, {}]
        model = self.model
        for number, record in behaviour_examples.objects(Path(self.path)):
            if set(columns) - record.keys():
                raise UserError(f"{self.path}, line {number}: a response has the columns {', '.join(columns)}")
            model = record["model"] if model is None else model
            for responses, strength in zip(by_side, (self.positive, self.negative), strict=True):
                if record["strength"] == strength and record["model"] == model:
                    name = f"{record['id']}/{record['sample']}" + (f", {record['system']}" if record["system"] else "")
                    if name in responses:
                        raise UserError(f"{self.path}: the response to prompt {name} occurs twice")
                    responses[name] = record["prompt"], record["response"].strip()
        examples = [
            BehaviourExample(name, self.behaviour, prompt, response, by_side[1][name][1])
            for name, (prompt, response) in by_side[0].items()
            if name in by_side[1] and response and by_side[1][name][1] and response != by_side[1][name][1]
        ]
        if not examples:
            raise UserError(
                f"{self.path} has no prompt to which {model} responds differently at strengths {self.positive} and "
                f"{self.negative} (null: unsteered)"
            )
        return examples


class PocketBehaviour(BehaviourSource):
    """A behaviour of the pocket language, whose true margins are known.

    Args:
        behaviour: ``myopia``, ``corrigible`` or ``truthful``.
        per_topic: examples of each of its 20 topics.
        chat: questions in chat form, the form's marks written out: leave the language model's own ``chat`` off.
        seed: draws the examples.
    """

    @ranged
    def __init__(self, behaviour: str, per_topic: int = 10, chat: bool = False, seed: int = 0) -> None:
        numbers.fits(f"per_topic {per_topic} on 20 topics", 20 * per_topic, 1000)
        self.behaviour, self.per_topic, self.chat, self.seed = behaviour, per_topic, chat, seed

    def items(self) -> list[pocket_prompts.BehaviourItem]:
        """Return the examples with their ground truth, in the same order."""
        return pocket_prompts.behaviour_items(self.behaviour, self.per_topic, self.seed, self.chat)

    def read(self) -> list[BehaviourExample]:
        """Return the examples without their ground truth."""
        return [
            BehaviourExample(
                f"{item.topic}/{number % self.per_topic + 1}",
                self.behaviour,
                in_chat(item.prompt) if self.chat else item.prompt,
                item.positive,
                item.negative,
            )
            for number, item in enumerate(self.items())
        ]

    def cluster(self, example: BehaviourExample) -> str:
        """Return the topic, which determines the ground truth."""
        return example.id.split("/")[0]

    def own_reference_texts(self) -> list[str]:
        """Return the language's stories."""
        return [text for text, _ in pocket_items.neutral_texts(64, self.seed)]
