"""Prompts with known answers, split for fitting to the errors, for calibration, and for testing."""

from collections.abc import Sequence

from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from lightning_steer import numbers
from lightning_steer.data.base import LabelledBatch, SteeringDataModule
from lightning_steer.data.batches import share
from lightning_steer.data.labelled_batches import LabelledBatches
from lightning_steer.data.labelled_rows import LabelledExample, check_labels, contradictions, shared_text
from lightning_steer.data.mera.generated_answers import Answering
from lightning_steer.data.mera.generated_backbone import GeneratedAnswerBackbone
from lightning_steer.data.mera.tasks import LabelledTask, Sizes
from lightning_steer.data.observations import Observations, observe_once
from lightning_steer.data.readable import Reader, TooLong, language_model
from lightning_steer.data.splits import split
from lightning_steer.errors import UserError
from lightning_steer.lm.continuations import continuation
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.numbers import ranged


class MERADataModule(SteeringDataModule):
    """Labelled prompts: rows to fit a model's errors on, rows to choose the threshold on, and held-out rows.

    Repeated prompts are used once, and all rows of a group go into one split, so splits share no rows.

    Args:
        source: where the prompts come from: SmsSpam, FinanceTask, MMLU, PocketTask, or your own LabelledFile.
        train: rows to fit on; null for the task's default, usually 3,000.
        calibration: rows to choose the threshold on; null for 250.
        test: held-out rows; null for the task's default.
        leading_blank: whether a blank separates prompt and answer; set it to false with most chat templates.
        batch_size: rows in a batch, about, shared out over all processes.
        seed: draws the splits.
        cache: folder, usually below checkpoints/, for the model's activations and answers on training rows; computed
            if missing and recomputed if anything differs. Null runs the model in every fit.
        answering: lets the model generate its answer, which is graded where its first label begins (the position
            ``exact``); an answer without a label is wrong. Null scores the labels right after the prompt (``last``).
        too_long: how to treat rows longer than the model's context: ``refuse`` stops and names one, ``skip`` leaves
            them out, ``truncate_left`` keeps the longest readable end of their prompts; options are never cut.
            The report counts these rows for each part.
        before: text put before every prompt, such as an instruction; the splits do not depend on it.
    """

    subject = "labelled prompts"

    reader: Reader

    @ranged
    def __init__(
        self,
        source: LabelledTask,
        train: int | None = None,
        calibration: int | None = None,
        test: int | None = None,
        leading_blank: bool = True,
        batch_size: int = 256,
        seed: int = 0,
        cache: str | None = None,
        answering: Answering | None = None,
        too_long: TooLong = "refuse",
        before: str = "",
    ) -> None:
        super().__init__()
        self.before = before
        self.reader = Reader(too_long, ("training", "calibration", "held-out"))
        check_labels(source.labels)
        arguments = f"train={train}, calibration={calibration}, test={test}"
        sizes = Sizes(train or source.sizes.train, calibration or source.sizes.calibration, test or source.sizes.test)
        if min(batch_size, *sizes) < 1 or 0 in (train, calibration, test):
            raise UserError(
                f"batch_size and the sizes of the splits are positive, not batch_size={batch_size}, {arguments}"
            )
        numbers.fits(
            f"train {sizes.train}, calibration {sizes.calibration} and test {sizes.test} rows", sum(sizes), 1000
        )
        self.source, self.sizes, self.batch_size, self.seed = source, sizes, batch_size, seed
        self.task, self.paired, self.labels = source.name, False, tuple(source.labels)
        self.cache, self.answering = cache, answering
        blank = " " if leading_blank else ""
        variants_of = [dict.fromkeys(blank + v.strip() for v in variants) for variants in source.labels.values()]
        self.choices = tuple(option for variants in variants_of for option in variants)
        self.label_of = tuple(k for k, variants in enumerate(variants_of) for _ in variants)
        self._read_by: LLM | None = None

    def prepare_data(self) -> None:
        """Fill the cache, if one is set, on one process; raises ValueError or OSError."""
        trainer = self.trainer
        if self.cache is None or trainer is None or trainer.state.fn not in (TrainerFn.FITTING, TrainerFn.TESTING):
            return
        if self._llm is None:
            raise UserError("cache keeps what a language model does: leave it out, or give an LLM as the backbone")
        if trainer.precision != "32-true":
            raise UserError(
                f"the cache is not filled in trainer.precision {trainer.precision}: say with the backbone's dtype what "
                "it computes in, or leave the cache out"
            )
        self.setup()
        if self.reader.changes:  # which rows are left is known only once they are tokenized
            self._llm.load()
            self.read_by(self._llm)
        questions = [MultipleChoice(example.prompt, self.choices) for example in self.train]
        observe_once(self._llm, questions, self.cache, self.answering, trainer.strategy.root_device)

    @property
    def _llm(self) -> LLM | None:
        """Return the module's language model, if it has one."""
        backbone = getattr(self.trainer and self.trainer.lightning_module, "backbone", None)
        backbone = backbone.plain if isinstance(backbone, GeneratedAnswerBackbone) else backbone
        return backbone if isinstance(backbone, LLM) else None

    def setup(self, stage: str | None = None) -> None:
        """Read or generate the rows and split them, once; raises ValueError or FileNotFoundError."""
        if hasattr(self, "train"):
            return
        rows = self.source.examples(self.drawn, self.seed)
        unique = list({e.prompt: e for e in reversed(rows)}.values())[::-1]
        if len(unique) < 2:
            raise UserError(f"all prompts of {self.task} are equal: {unique[0].prompt[:60]!r}; check its template")
        for k, label in enumerate(self.labels):
            if not any(e.label == k for e in unique):
                raise UserError(f"no row of {self.task} has the label {label!r}: leave it out, or bring rows of it")
        if any(e.group is not None for e in unique):  # the others stand alone
            unique = [e if e.group is not None else e._replace(group=f"row {i}") for i, e in enumerate(unique)]
        names = sorted({e.group for e in unique if e.group is not None})
        self.groups = {name: number for number, name in enumerate(names)} or None
        self.notes = [note for note in (contradictions(rows), shared_text(unique)) if note]
        parts = split([e.label for e in unique], self.sizes, self.seed, [e.group for e in unique] if names else None)
        self._whole = [[unique[i]._replace(prompt=self.before + unique[i].prompt) for i in part] for part in parts]
        self.train, self.calibration, self.test = self._whole

    def read_by(self, llm: LLM) -> None:
        """Check with a loaded model that all splits can be read; raises ValueError naming a row."""
        if llm is self._read_by:
            return
        self.setup()
        self.check_tokens(llm)
        rows = iter(range(1, 1 + sum(map(len, self._whole))))
        questions = [[(str(next(rows)), MultipleChoice(e.prompt, self.choices)) for e in part] for part in self._whole]
        readable = self.reader.read(llm, questions, 0 if self.answering is None else self.answering.max_new_tokens)
        parts = [
            [part[i]._replace(prompt=q.prompt) for i, q in places]
            for part, places in zip(self._whole, readable, strict=True)
        ]
        for part, all_examples in zip(parts, self._whole, strict=True):
            for k in sorted({e.label for e in all_examples} - {e.label for e in part}):
                raise UserError(
                    f"all rows with the label {self.labels[k]!r} of one split are longer than the {llm.longest} tokens "
                    f"that {llm.name} reads: leave the label out, or use too_long truncate_left"
                )
        self.train, self.calibration, self.test = parts
        self._read_by = llm

    @property
    def drawn(self) -> int:
        """Return how many prompts to generate: some more than needed, as a few may repeat."""
        return sum(self.sizes) + sum(self.sizes) // 10

    def check_tokens(self, llm: LLM, prompts: int = 3) -> None:
        """Check that the model's tokens tell the labels apart; raises ValueError naming labels that fail.

        Labels are compared as the tokens of their whole continuations. Variants of different labels must not be equal,
        and none may be a prefix of another: its probability would include the other's.
        """
        for example in self.train[:prompts]:
            prompt = llm.prompt(example.prompt)
            tokens = []
            for i, option in enumerate(self.choices):
                try:
                    tokens.append(continuation(llm.tokenizer, prompt, option, not llm.chat)[1])
                except ValueError as error:
                    raise UserError(
                        f"{option!r} is no token of {llm.name}: write the label {self._label(i)!r} otherwise ({error})"
                    ) from error
            for i, (option, ids) in enumerate(zip(self.choices, tokens, strict=True)):
                for j, other_ids in enumerate(tokens):
                    if self.label_of[i] != self.label_of[j] and other_ids[: len(ids)] == ids:
                        raise UserError(
                            f"{llm.name} reads {option!r} as the beginning of {self.choices[j]!r}, so the labels "
                            f"{self._label(i)!r} and {self._label(j)!r} collide: write them otherwise"
                        )

    def _label(self, option: int) -> str:
        return self.labels[self.label_of[option]]

    def batches(self, examples: Sequence[LabelledExample], seen: Observations | None = None) -> LabelledBatches:
        """Return this process's rows of a split, in batches."""
        no_label = () if self.answering is None else (len(self.labels),)  # an additional label: no label at all
        label_of = self.label_of + no_label
        return LabelledBatches(examples, self.choices, label_of, self.groups, self.batch_size, share(self), seen)

    def _loader(
        self, examples: Sequence[LabelledExample], seen: Observations | None = None
    ) -> DataLoader[LabelledBatch]:
        return self.batches(examples, seen).loader()

    def _checked(self) -> "MERADataModule":
        llm = language_model(self)
        if llm is not None:
            self.read_by(llm)
        return self

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        self._checked()
        if self.cache is None or self._llm is None:
            return self._loader(self.train)
        questions = [MultipleChoice(example.prompt, self.choices) for example in self.train]
        return self._loader(self.train, Observations(self.cache, self._llm, questions, self.answering))

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._checked().calibration)

    def test_dataloader(self) -> list[DataLoader[LabelledBatch]]:
        """Return loaders of the held-out rows and of the training rows."""
        return [self._loader(self._checked().test), self._loader(self.train)]

    def predict_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._checked().test)
