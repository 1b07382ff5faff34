"""Classification tasks for repairing errors: prompts, their right labels, and how each label may be written.

They are the five tasks of Hedström et al. 2025 (MERA), arXiv 2510.13290, from the hub or from local files; those of the
pocket language; and a user's own. We wrote the prompts where the source gives none.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from lightning_steer.data.labelled_rows import LabelledExample, check_labels, labelled
from lightning_steer.data.pocket import tasks as pocket_tasks
from lightning_steer.data.pocket.prompts import TaskPrompt, task_prompts
from lightning_steer.data.table_files import hub_rows, read_rows
from lightning_steer.errors import UserError
from lightning_steer.numbers import ranged


class Sizes(NamedTuple):
    """Rows of the splits."""

    train: int
    calibration: int
    test: int


class LabelledTask(ABC):
    """Where labelled prompts come from."""

    name: str
    """For reports."""
    labels: Mapping[str, Sequence[str]]
    """Written variants of each label, without a leading blank; the keys are the label column's values."""
    sizes: Sizes
    """Default sizes of the splits."""

    @abstractmethod
    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        """Return labelled prompts: n generated ones, drawn with the seed, or all of a file. Raises ValueError."""


class LabelledFile(LabelledTask):
    """A user's own data: a table with a column of labels.

    Args:
        file: local .csv, .tsv, .jsonl or .parquet file, or a folder written by datasets' save_to_disk.
        template: the prompt, with {column} where a column's text goes; it ends just before the answer.
        labels: for each value of the label column, its written variants.
        label_column: the column of labels.
        group_column: the column that names what dependent rows share (a passage, a person): rows of a group stay in one
            split, and intervals and certificates count groups. Null: rows are independent.
        columns: names of the columns, where a .csv or .tsv file has no header line.
        name: the task's name in reports; null for the file's.
    """

    def __init__(
        self,
        file: str,
        template: str,
        labels: dict[str, list[str]],
        label_column: str = "label",
        columns: list[str] | None = None,
        name: str | None = None,
        group_column: str | None = None,
    ) -> None:
        check_labels(labels)
        if not re.search(r"\{\w+\}", template):
            raise UserError(f"the template {template!r} names no column: write {{text}} where the column's text goes")
        self.file, self.template, self.labels, self.label_column = file, template, labels, label_column
        self.group_column = group_column
        self.columns, self.name, self.sizes = columns, name or Path(file).stem, Sizes(3000, 250, 250)

    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        rows = read_rows(self.file, self.columns)
        return labelled(rows, self.template, self.label_column, self.labels, self.file, self.group_column)


class SmsSpam(LabelledTask):
    """Is a short message ham or spam?

    Args:
        file: the UCI collection, ``label<TAB>text``; null takes ucirvine/sms_spam from the hub.
    """

    name, sizes = "sms_spam", Sizes(3000, 250, 250)
    labels: ClassVar = {"ham": ("ham", "Ham", "HAM"), "spam": ("spam", "Spam", "SPAM")}
    template = "Is the following message ham or spam?\nMessage: {sms}\nAnswer:"

    def __init__(self, file: str | None = None) -> None:
        self.file = file

    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        if self.file is None:
            rows = hub_rows("ucirvine/sms_spam", None, "train")
            rows = [{**row, "label": ("ham", "spam")[int(row["label"])]} for row in rows]
        else:
            rows = read_rows(self.file, ["label", "sms"])
        rows = [{**row, "sms": str(row["sms"]).strip()} for row in rows]
        return labelled(rows, self.template, "label", self.labels, self.file or self.name)


class FinanceTask(LabelledTask):
    """Questions about financial texts, in the fields of sujet-ai/Sujet-Finance-Instruct-177k.

    Args:
        task: which of its tasks.
        file: a table with the columns inputs, answer, task_type; null takes the hub's.
    """

    sizes = Sizes(3000, 250, 250)

    def __init__(self, task: Literal["yes_no_question", "sentiment_analysis"], file: str | None = None) -> None:
        tasks = {"yes_no_question": ("Yes", "No"), "sentiment_analysis": ("positive", "neutral", "negative")}
        if task not in tasks:
            raise UserError(f"the finance tasks are {' and '.join(tasks)}, not {task!r}")
        self.name, self.file = task, file
        self.labels = {label: (label, label.lower(), label.capitalize()) for label in tasks[task]}

    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        name = self.file or "sujet-ai/Sujet-Finance-Instruct-177k"
        rows = hub_rows(name, None, "train") if self.file is None else read_rows(self.file)
        if "task_type" not in rows[0]:
            raise UserError(f"{name} has no column 'task_type'; its columns are {', '.join(rows[0])}")
        rows = [{**r, "answer": str(r.get("answer")).strip().lower()} for r in rows if r["task_type"] == self.name]
        if not rows:
            raise UserError(f"{name} has no rows of task_type {self.name!r}")
        labels = {label.lower(): variants for label, variants in self.labels.items()}
        return labelled(rows, "{inputs}\nAnswer:", "answer", labels, name)


class MMLU(LabelledTask):
    """Questions with four answers, from all subjects of a level.

    Args:
        level: ``high_school`` (14 subjects) or ``professional`` (4).
        folder: where CSV files ``LEVEL_*_test.csv`` (``_val``, ``_dev``) without header are; null takes cais/mmlu from
            the hub. All are taken together and split anew.
    """

    labels: ClassVar = {letter: (letter,) for letter in "ABCD"}
    template = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"

    def __init__(self, level: Literal["high_school", "professional"], folder: str | None = None) -> None:
        if level not in ("high_school", "professional"):
            raise UserError(f"the levels of MMLU are high_school and professional, not {level!r}")
        self.level, self.folder, self.name = level, folder, f"mmlu_{level}"
        # professional has 3,021 questions on the hub, all splits taken together: what the paper trains on and the rest
        self.sizes = Sizes(3000, 250, 210) if level == "high_school" else Sizes(2601, 210, 210)

    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        if self.folder is None:
            rows = [
                {**dict(zip("ABCD", r["choices"], strict=True)), **r, "answer": "ABCD"[int(r["answer"])]}
                for split in ("test", "validation", "dev")
                for r in hub_rows("cais/mmlu", "all", split)
                if r["subject"].startswith(self.level)
            ]
        else:
            kinds = ("test", "val", "dev")
            files = [f for kind in kinds for f in sorted(Path(self.folder).rglob(f"{self.level}_*_{kind}.csv"))]
            if not files:
                raise FileNotFoundError(f"there are no files {self.level}_*_test.csv below {self.folder}")
            rows = [row for file in files for row in read_rows(file, ["question", *"ABCD", "answer"])]
        return labelled(rows, self.template, "answer", self.labels, self.folder or "cais/mmlu")


class PocketTask(LabelledTask):
    """A task of the pocket language, whose true errors are known.

    Args:
        task: sms_spam, yes_no_question, sentiment_analysis, mmlu_high_school or mmlu_professional.
        pull_share: share of prompts whose right label is the one that careless markers write; null: equal shares.
        careless: share of prompts with a careless marker.
        chat: for the tuned model, whose prompts are what a user says; set the backbone's ``chat`` too.
    """

    sizes = Sizes(3000, 250, 1000)

    @ranged
    def __init__(self, task: str, pull_share: float | None = None, careless: float = 0.4, chat: bool = False) -> None:
        if task not in pocket_tasks.NAMES:
            raise UserError(f"the pocket tasks are {', '.join(pocket_tasks.NAMES)}, not {task!r}")
        if not (0 <= careless <= 1 and 0 <= (pull_share or 0) <= 1):
            raise UserError(f"careless and pull_share are shares and lie in [0, 1], not {careless} and {pull_share}")
        self.task, self.pull_share, self.careless, self.chat = task, pull_share, careless, chat
        self.name = f"pocket {task}, " + ("balanced" if pull_share is None else f"{pull_share:.0%} pull class")
        spec = pocket_tasks.TASKS[pocket_tasks.NAMES.index(task)]
        self.labels, self.pull = {label: (label,) for label in spec.labels}, spec.labels.index(spec.pull)

    def examples(self, n: int, seed: int) -> list[LabelledExample]:
        return [LabelledExample(item.prompt, item.label, item.error) for item in self.drawn(n, seed)]

    def drawn(self, n: int, seed: int) -> list[TaskPrompt]:
        """Return the prompts with their ground truth."""
        return task_prompts(self.task, n, seed, self.pull_share, self.careless, self.chat)
