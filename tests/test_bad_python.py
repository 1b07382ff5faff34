"""What the command line refuses, Python refuses too, in the same words: the tables' settings, given to constructors."""

import inspect
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import bad_errors
import bad_odd
import bad_texts
import bad_toy
import numpy as np
import pytest
import torch
import yaml
from bad_commands import D, M, named
from conftest import WORLD

from lightning_steer import cli, numbers
from lightning_steer.data import (
    BehaviourDataModule,
    MERADataModule,
    PocketDataModule,
    PocketStereoSetDataModule,
    PromptsDataModule,
    ToyDataModule,
    ToyLabelDataModule,
)
from lightning_steer.data.activations import ActivationsDataModule
from lightning_steer.data.behaviours.sources import PocketBehaviour
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import Identity
from lightning_steer.metrics import Answers, BehaviourEffect
from lightning_steer.modules import (
    ErrorProbe,
    LanguageModel,
    Responses,
    SparseCoder,
    SteeringAdaptor,
    ToyClassifier,
)
from lightning_steer.selection.rule import Certified


def steering(**settings: Any) -> SteeringAdaptor:
    return SteeringAdaptor(LLM("x"), Identity, BehaviourEffect(), **settings)


MAKE: dict[tuple[str, str], Any] = {
    ("toy", M): ToyClassifier,
    ("toy", D): lambda **given: ToyLabelDataModule(**{**WORLD, **given}),
    ("steer", M): steering,
    ("steer", D): lambda **given: ToyDataModule(**{**WORLD, **given}),
    ("behaviour", M): steering,
    ("behaviour", M + "backbone.init_args."): lambda **given: LLM("x", **given),
    ("behaviour", D): lambda **given: BehaviourDataModule(PocketBehaviour("truthful"), **given),
    ("behaviour", D + "source.init_args."): lambda **given: PocketBehaviour(**{"behaviour": "truthful", **given}),
    ("stereoset", D): PocketStereoSetDataModule,
    ("mera", M): steering,
    ("mera", D): lambda **given: MERADataModule(PocketTask("sms_spam"), **given),
    ("mera", D + "source.init_args."): lambda **given: PocketTask(**{"task": "sms_spam", **given}),
    ("mera", M + "selection.init_args."): Certified,
    ("probe", M): lambda **given: ErrorProbe(LLM("x"), Answers(), **given),
    ("sae", M): lambda **given: SparseCoder(LLM("x"), **given),
    ("pocket", M): lambda **given: LanguageModel(**{"architecture": {"model_type": "llama"}, **given}),
    ("pocket", D): PocketDataModule,
    ("responses", M): lambda **given: Responses(LLM("x"), **given),
    ("responses", D): lambda **given: PromptsDataModule(**{"file": "x", **given}),
    ("cache", D): lambda **given: ActivationsDataModule(**{"file": "x", "folder": "y", **given}),
}
ROWS = [
    (base, option, value, words)
    for table in (bad_toy.SETTINGS, bad_texts.SETTINGS, bad_errors.SETTINGS)
    for base, rows in table.items()
    for option, value, words in rows
] + [(base, option, value, words[0]) for base, option, value, words in bad_odd.OPTIONS]


def is_a_number(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts)


LATE = re.compile(
    r"behaviour .*(layers=[-\[]?\d|revision=)|steer .*(world_seed=5|attributes=7)|stereoset .*per_type=100000"
    r"|mera .*strengths=|toy .*(widths=\[1000000, |betas=(0|\[0.9(,0.9,0.9)?\])|batch_size=\[8)"
)
"""What only the model, the network or the rows can judge, at ``setup`` or later; wrong types are the parser's."""


def numeric() -> list[Any]:
    """Rows of the tables that are numbers out of their range, of the kind that the setting takes."""
    found = []
    for base, option, text, words in ROWS:
        place, _, name = option.rpartition(".")
        value = yaml.safe_load(text)
        known = (base, f"{place}.") in MAKE and words not in ("int", "bool", "float", "int or list[int]")
        if known and is_a_number(value) and not LATE.match(f"{base} {option}={text}"):
            found.append(pytest.param(base, f"{place}.", name, value, words, text, id=f"{base} {option}={text}"))
    return found


def test_there_are_enough_of_them() -> None:
    assert len(numeric()) >= 100


@pytest.mark.parametrize(("base", "place", "name", "value", "words", "text"), numeric())
def test_a_number_out_of_its_range(base: str, place: str, name: str, value: Any, words: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"(?i:{re.escape(words)})") as caught:
        MAKE[base, place](**{name: value})
    sentence = str(caught.value)
    assert "\n" not in sentence
    for number in named(text):
        assert number in sentence


def listed() -> list[Any]:
    """Every class that a configuration can name, with each of its settings that has a range."""
    classes = {c for known in cli.LISTS.values() for c in known.values() if inspect.isclass(c)} | {
        Certified,
        PocketBehaviour,
        PocketTask,
    }
    return [
        pytest.param(c, name, id=f"{c.__name__} {name}")
        for c in sorted(classes, key=lambda c: c.__name__)
        if not inspect.isabstract(c)
        for name in inspect.signature(c).parameters
        if name in numbers.RANGES
    ]


@pytest.mark.parametrize(("kind", "name"), listed())
def test_every_class_holds_the_ranges(kind: type, name: str) -> None:
    """A class that is added without the check fails here; what else it needs is never looked at."""
    others = {
        other: None
        for other, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    for value in (float("nan"), -7, np.int64(-7), np.array([-7]), torch.tensor(-7), Fraction(-7), Decimal(-7)):
        with pytest.raises(ValueError, match=rf"{name} must .*, not (nan|-7)"):
            kind(**{**others, name: value})
