"""What a model does with questions, unsteered, computed once: a cache of its activations, and its answers beside it.

Answers are the scores of all options and, where the model answers in its own words, what it wrote before its label.
They stay valid as long as model, tokenizer, questions and the way of answering do; which layers are read is the
cache's affair alone.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from lightning_steer.cache import Cache, ensure, fingerprints, locked
from lightning_steer.cache.files import digest, write
from lightning_steer.cache.origin import Origin, origin_of, positions_of
from lightning_steer.cache.record import tokens_of
from lightning_steer.data.mera.generated_answers import Answering, answers
from lightning_steer.data.questions import Observed
from lightning_steer.escapes import say
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import Question

NAME = "answers.safetensors"
AT_ONCE = 256
"""Questions that are answered between two steps of the progress bar."""


class Observations:
    """Recorded observations of questions, by their number.

    Args:
        folder: where :func:`observe_once` has put them.
        llm: the model that was observed, loaded.
        questions: those that were asked.
        answering: as it was asked.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are of other sites, tokens, questions or answers, or damaged.
    """

    def __init__(
        self, folder: str | Path, llm: LLM, questions: Sequence[Question], answering: Answering | None = None
    ) -> None:
        self.cache = Cache(folder, verified=True)  # compared with their sha256 before the fit
        self.scores, written, answered = _read(Path(folder))
        origin, count = self.cache.manifest.origin, len(questions)
        found = (self.cache.manifest.sites, len(self.cache), len(self.scores), len(written))
        if found != (list(llm.sites), *[count] * 3):
            raise ValueError(
                f"the cache in {folder} holds {found[1]} rows at {', '.join(found[0])}, not {count} at "
                f"{', '.join(llm.sites)}: another run uses the same folder; give each its own"
            )
        texts = fingerprints.of_texts(_texts(questions, written))[0]
        asked = fingerprints.of_texts(_asked(llm, questions, answering))[0]
        if (origin.texts, origin.positions, answered.texts) != (texts, positions_of(llm), asked):
            raise ValueError(
                f"the cache in {folder} is of other questions, answers or tokens than this run asks for: another run "
                "uses the same folder; give each its own"
            )

    def at(self, row: Tensor) -> Observed:
        """What was seen of questions ``row [B]``."""
        return Observed(self.scores[row], dict(zip(self.cache.manifest.sites, self.cache.rows(row), strict=True)))


def observe_once(
    llm: LLM,
    questions: Sequence[Question],
    folder: str | Path,
    answering: Answering | None = None,
    device: torch.device | str | None = None,
) -> None:
    """See that the folder holds what this model does with these questions; computes what is missing or outdated.

    Says in a sentence what it computes, and why. Other processes that want the same folder wait.

    Args:
        llm: the model; it is loaded only if something is to be computed.
        questions: prompts with the written variants of their labels as options.
        folder: where cache and answers are.
        answering: the model answers in its own words; null grades it behind the prompt.
        device: where the model is put to compute; null leaves it where it is.

    Raises:
        ValueError: a prompt cannot be read or answered, or ends amid a token of its label.
        OSError: the folder cannot be written.
    """
    path = Path(folder)
    with locked(path):
        fresh = llm.tokenizer is None
        origin = _origin(llm, questions, answering, fresh)
        written = _kept(path, origin)
        if written is None:
            llm.load()
            if device is not None and llm.loading[2] is None:
                llm.to(device)
            origin = _origin(llm, questions, answering, fresh)
            why = "answers other questions" if (path / NAME).is_file() else "is not there yet"
            say(f"Answering {len(questions)} questions: {path / NAME} {why}.")
            written = _answer(llm, questions, path, answering, origin)
    ensure(llm, _texts(questions, written), path, dtype="float32", device=device)


def _texts(questions: Sequence[Question], written: Sequence[str]) -> list[str]:
    """What activations are recorded of: the prompts, each with what was written before the label."""
    return [question.prompt + before for question, before in zip(questions, written, strict=True)]


def _asked(llm: LLM, questions: Sequence[Question], answering: Answering | None) -> Iterator[str]:
    """What the answers depend on beside the model."""
    how = [llm.per, None if answering is None else answering.max_new_tokens]
    return (json.dumps([*how, question.prompt, *question.options]) for question in questions)


@torch.no_grad()
def _answer(
    llm: LLM, questions: Sequence[Question], folder: Path, answering: Answering | None, origin: Origin
) -> list[str]:
    llm.eval()
    scores, asked = [], []
    for start in tqdm(range(0, len(questions), AT_ONCE), desc="answering", leave=False, disable=None):
        part = list(questions[start : start + AT_ONCE])
        if answering is not None:
            (found,) = answers(llm, part, None, 1, answering)
            part = found.questions
            scores.append(found.scored(llm.scores(part)[0]).cpu())
        else:
            scores.append(llm.scores(part)[0].cpu())
        asked += part
    _check_prompts(llm, asked)
    written = [new.prompt[len(old.prompt) :] for new, old in zip(asked, questions, strict=True)]
    found = torch.cat(scores).float().contiguous()
    about = {"origin": json.dumps(origin._asdict()), "written": json.dumps(written), "sha256": _sum(found, written)}
    write(folder / NAME, save({"scores": found}, about))
    return written


def _check_prompts(llm: LLM, questions: Sequence[Question]) -> None:
    """Activations are recorded of prompts alone: their tokens must be those that are read before a label."""
    ids = tokens_of(llm, [question.prompt for question in questions])
    for row in llm.rows(questions):
        if row.ids[: row.prompt] != ids[row.example]:
            raise ValueError(
                f"{llm.name} reads the end of the prompt {questions[row.example].prompt[-40:]!r} and the beginning of "
                "its label as one token, so there is no activation of the prompt alone: leave the cache out, or end "
                "the template elsewhere"
            )


def _origin(llm: LLM, questions: Sequence[Question], answering: Answering | None, fresh: bool) -> Origin:
    return origin_of(llm, _asked(llm, questions, answering), False, "float32", 0, fresh)._replace(
        layers=[], part="", positions=""
    )


def _kept(folder: Path, origin: Origin) -> list[str] | None:
    """What was written before each label, if the folder's answers are of this origin; else says how they differ."""
    try:
        _, written, found = _read(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        say(f"{error}.")
        return None
    if differences := found.differences(origin):
        say(f"The answers in {folder} differ in {differences}.")
        return None
    return written


def _read(folder: Path) -> tuple[Tensor, list[str], Origin]:
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there are no answers in {folder}: run fit, which computes them")
    try:
        with safe_open(path, "pt") as file:
            scores, about = file.get_tensor("scores"), file.metadata()
        written, origin = json.loads(about["written"]), Origin(**json.loads(about["origin"]))
        if about["sha256"] != _sum(scores, written):
            raise ValueError("its own sha256 is another")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or of another version ({str(error)[:200]})") from error
    return scores, written, origin


def _sum(scores: Tensor, written: list[str]) -> str:
    return digest(scores.numpy().tobytes() + json.dumps(written).encode())
