"""Record an unsteered model's activations and answers to questions once, in a cache folder.

Answers are the scores of all options and, if the model generates its answer, the text before its label. They stay
valid as long as model, tokenizer, questions and answer settings do; the layers matter only to the cache.
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
from lightning_steer.cache.origin import Origin, origin_of
from lightning_steer.cache.record import tokens_of
from lightning_steer.data.base import Observed
from lightning_steer.data.mera.generated_answers import Answering, answers
from lightning_steer.errors import UserError
from lightning_steer.escapes import say
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import described
from lightning_steer.lm.tokens import MultipleChoice

NAME = "answers.safetensors"
AT_ONCE = 256
"""Questions per step of the progress bar."""


class Observations:
    """Recorded observations of questions, by their number.

    Args:
        folder: the folder that :func:`observe_once` filled.
        llm: the model that was observed, loaded.
        questions: the questions that were answered.
        answering: how they were answered.

    Raises:
        FileNotFoundError: there are no observations.
        ValueError: they are of other sites, tokens, questions or answers, or damaged.
    """

    def __init__(
        self, folder: str | Path, llm: LLM, questions: Sequence[MultipleChoice], answering: Answering | None = None
    ) -> None:
        self.cache = Cache(folder, verified=True)  # compared with their sha256 before the fit
        self.scores, written, answered = _read(Path(folder))
        origin, count = self.cache.manifest.origin, len(questions)
        contents = (self.cache.manifest.sites, len(self.cache), len(self.scores), len(written))
        if contents != (list(llm.sites), *[count] * 3):
            raise UserError(
                f"the cache in {folder} holds {contents[1]} rows at {', '.join(contents[0])}, not {count} at "
                f"{', '.join(llm.sites)}: another run uses the same folder; give each its own"
            )
        texts = fingerprints.of_texts(_activation_texts(questions, written))[0]
        answer_texts = fingerprints.of_texts(_answer_inputs(llm, questions, answering))[0]
        if (origin.texts, origin.positions, answered.texts) != (texts, described(llm.read_positions), answer_texts):
            raise UserError(
                f"the cache in {folder} is of other questions, answers or tokens than this run asks for: another run "
                "uses the same folder; give each its own"
            )

    def at(self, row: Tensor) -> Observed:
        """Return the observations of questions ``row [B]``."""
        return Observed(self.scores[row], dict(zip(self.cache.manifest.sites, self.cache.rows(row), strict=True)))


def observe_once(
    llm: LLM,
    questions: Sequence[MultipleChoice],
    folder: str | Path,
    answering: Answering | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Make sure that the folder holds this model's observations; computes what is missing or outdated.

    Prints what it computes, and why. Other processes that need the same folder wait.

    Args:
        llm: the model; it is loaded only if something is to be computed.
        questions: prompts with the written variants of their labels as options.
        folder: where cache and answers are.
        answering: settings of generated answers; None scores labels right after the prompt.
        device: device to compute on; None keeps the model's device.

    Raises:
        ValueError: a prompt cannot be read or answered, or ends amid a token of its label.
        OSError: the folder cannot be written.
    """
    path = Path(folder)
    with locked(path):
        fresh = llm.tokenizer is None
        origin = _origin(llm, questions, answering, fresh)
        written = _valid_answers(path, origin)
        if written is None:
            llm.load()
            if device is not None and llm.loading[2] is None:
                llm.to(device)
            origin = _origin(llm, questions, answering, fresh)
            reason = "answers other questions" if (path / NAME).is_file() else "is not there yet"
            say(f"Answering {len(questions)} questions: {path / NAME} {reason}.")
            written = _answer(llm, questions, path, answering, origin)
    ensure(llm, _activation_texts(questions, written), path, dtype="float32", device=device)


def _activation_texts(questions: Sequence[MultipleChoice], written: Sequence[str]) -> list[str]:
    """Return the texts to record: each prompt with the text generated before the label."""
    return [question.prompt + before for question, before in zip(questions, written, strict=True)]


def _answer_inputs(llm: LLM, questions: Sequence[MultipleChoice], answering: Answering | None) -> Iterator[str]:
    """Yield everything besides the model that the answers depend on."""
    settings = [llm.normalize, None if answering is None else answering.max_new_tokens]
    return (json.dumps([*settings, question.prompt, *question.choices]) for question in questions)


@torch.no_grad()
def _answer(
    llm: LLM, questions: Sequence[MultipleChoice], folder: Path, answering: Answering | None, origin: Origin
) -> list[str]:
    llm.eval()
    scores, scored = [], []
    for start in tqdm(range(0, len(questions), AT_ONCE), desc="answering", leave=False, disable=None):
        batch = list(questions[start : start + AT_ONCE])
        if answering is not None:
            (answered,) = answers(llm, batch, None, 1, answering)
            batch = answered.questions
            scores.append(answered.scored(llm.scores(batch)[0]).cpu())
        else:
            scores.append(llm.scores(batch)[0].cpu())
        scored += batch
    _check_prompts(llm, scored)
    written = [new.prompt[len(old.prompt) :] for new, old in zip(scored, questions, strict=True)]
    table = torch.cat(scores).float().contiguous()
    info = {"origin": json.dumps(origin._asdict()), "written": json.dumps(written), "sha256": _digest(table, written)}
    write(folder / NAME, save({"scores": table}, info))
    return written


def _check_prompts(llm: LLM, questions: Sequence[MultipleChoice]) -> None:
    """Check that a prompt alone has the same tokens as the prompt before its label."""
    ids = tokens_of(llm, [question.prompt for question in questions])
    for row in llm.rows(questions):
        if row.ids[: row.prompt] != ids[row.example]:
            raise UserError(
                f"{llm.name} reads the end of the prompt {questions[row.example].prompt[-40:]!r} and the beginning of "
                "its label as one token, so there is no activation of the prompt alone: leave the cache out, or end "
                "the template elsewhere"
            )


def _origin(llm: LLM, questions: Sequence[MultipleChoice], answering: Answering | None, fresh: bool) -> Origin:
    return origin_of(llm, _answer_inputs(llm, questions, answering), False, "float32", 0, fresh)._replace(
        layers=[], part="", positions=""
    )


def _valid_answers(folder: Path, origin: Origin) -> list[str] | None:
    """Return the text before each label if the saved answers have this origin; else print how they differ."""
    try:
        _, written, saved = _read(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        say(f"{error}.")
        return None
    if differences := saved.differences(origin):
        say(f"The answers in {folder} differ in {differences}.")
        return None
    return written


def _read(folder: Path) -> tuple[Tensor, list[str], Origin]:
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there are no answers in {folder}: run fit, which computes them")
    try:
        with safe_open(path, "pt") as file:
            scores, metadata = file.get_tensor("scores"), file.metadata()
        written, origin = json.loads(metadata["written"]), Origin(**json.loads(metadata["origin"]))
        if metadata["sha256"] != _digest(scores, written):
            raise UserError("its own sha256 is another")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or of another version ({str(error)[:200]})") from error
    return scores, written, origin


def _digest(scores: Tensor, written: list[str]) -> str:
    return digest(scores.numpy().tobytes() + json.dumps(written).encode())
