"""One model under study: its questions, its vectors, and its scores with many vectors added at once."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_steer.data.pair_batches import PairBatches
from lightning_steer.data.pair_module import FIT, SELECT, TEST
from lightning_steer.data.pocket.items import neutral_texts
from lightning_steer.data.pocket.text import BOS
from lightning_steer.data.stereoset.examples import StereoSetExample
from lightning_steer.data.stereoset.module import PocketStereoSetDataModule, question
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens
from lightning_steer.studies.fidelity.settings import Arm

TOKENS = 2048


class SubjectSplit(NamedTuple):
    """Questions of one part of a bias type's examples."""

    examples: list[StereoSetExample]
    contrasts: PairBatches

    @property
    def term(self) -> Tensor:
        """``[n]`` target terms as numbers."""
        return torch.tensor(self.contrasts.cluster)


@lru_cache(maxsize=8)
def language_model(folder: Path, continuation: bool = False) -> LLM:
    """Load a pocket model that is read at every layer; ``continuation`` reads all of its tokens, not only the last."""
    llm = LLM(
        str(folder),
        [0],
        normalize="tokens",
        read_positions=GeneratedTokens() if continuation else None,
        tokens_per_batch=TOKENS,
    )
    llm.load()
    return llm.every_layer()


def split(kind: str, chat: bool, part: int, tone: str = "neutral", seed: int = 0) -> SubjectSplit:
    """Return the examples of a bias type: ``FIT``, ``SELECT`` or ``TEST``; chats and plain text have the same terms.

    The seed draws sentences, unrelated words and the split of terms into parts.
    """
    data = PocketStereoSetDataModule(bias_types=[kind], chat=chat, tone=tone, seed=seed)
    data.setup()
    chosen = data.parts[part]
    term = [data.term[example.target.strip().casefold()] for example in chosen]
    questions = [question(example) for example in chosen]
    return SubjectSplit(chosen, PairBatches(questions, data.negative, data.positive, term, len(questions)))


@torch.no_grad()
def pair_activations(llm: LLM, contrasts: PairBatches) -> dict[str, tuple[Tensor, Tensor]]:
    """Return activations ``{site: (negative [n, d], positive [n, d])}``."""
    batch = contrasts[0]
    negative, positive = llm.activations(batch.negative), llm.activations(batch.positive)
    return {site: (negative[site], positive[site]) for site in llm.sites}


@torch.no_grad()
def added(llm: LLM, questions: PairBatches, site: str | None, vectors: Tensor) -> Tensor:
    """Score the questions, ``[C, n, options]``, with each of ``vectors [C, d]`` added to all tokens, or unsteered."""
    choices = list(questions.questions)
    if site is None:
        return llm.scores(choices)
    return llm.scores(choices, {site: lambda h: h + vectors[:, None, None]}, len(vectors))


def directions(count: int, width: int, length: float, seed: int = 0) -> Tensor:
    """Draw random vectors ``[count, d]`` of one length."""
    u = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return length * u / u.norm(dim=-1, keepdim=True)


def reference_texts(chat: bool, n: int = 64) -> list[str]:
    """Return stories that are unrelated to what is steered."""
    return [text.removeprefix(f"{BOS} ") for text, _ in neutral_texts(n, chat=chat)]


class Subject:
    """An arm of the study for one bias type.

    Args:
        arm: the model and the source of its vector.
        models: folder of each model.
        kind: the bias type.
        seed: draws the examples.
    """

    def __init__(self, arm: Arm, models: Mapping[str, Path], kind: str, seed: int = 0) -> None:
        self.arm, self.kind = arm, kind
        self.llm = language_model(models[arm.model])
        origin = language_model(models[arm.vector])
        self.fit, self.select, self.test = (split(kind, arm.chat, part, seed=seed) for part in (FIT, SELECT, TEST))
        pairs = pair_activations(origin, self.fit.contrasts)
        self.vectors = {site: (positive - negative).mean(0) for site, (negative, positive) in pairs.items()}

    def shifts(self, site: str, strengths: Sequence[float], draws: int) -> Tensor:
        """Return ``[S + draws * P, d]``: the vector at S strengths, then random ones at the P positive strengths."""
        vector = self.vectors[site]
        shifts = torch.tensor(strengths)[:, None] * vector
        positive = torch.tensor([strength for strength in strengths if strength > 0])
        random = directions(draws, len(vector), float(vector.norm()))
        return torch.cat([shifts, (random[:, None] * positive[:, None]).flatten(0, 1)])
