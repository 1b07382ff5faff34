"""Strengths at which the network cannot read its own activations are refused, naming the strength, and never scored."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import decoder, letters
from test_rows_are_readable import PAIRS, fit, here, model, pairs  # noqa: F401
from torch import Tensor

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import (
    ACE,
    LEACE,
    Ablation,
    Clamp,
    Conceptor,
    GaussianTransport,
    MeanDifference,
    PCADirection,
    Ridge,
)
from lightning_steer.records import Activations
from lightning_steer.vectors.exchange import export
from lightning_steer.vectors.imported import ImportedVector

METHODS = [
    MeanDifference,
    LEACE,
    ACE,
    Ridge,
    GaussianTransport,
    Ablation,
    Clamp,
    PCADirection,
    Conceptor,
    ImportedVector,
]


def fitted(kind: Any, width: int = 8) -> Any:
    h = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    if kind is ImportedVector:
        method = ImportedVector(width)
        method.vector = h[0]
        return method
    error = torch.arange(40) % 2
    return kind(width).fit(Activations(h + error[:, None], error.float(), error[:, None], True))


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("strength", "dtype"),
    [
        (1e38, torch.float32),
        (1e22, torch.float32),  # finite, but not its square: a norm would make zeros of it
        (-1e25, torch.float32),
        (1e22, torch.bfloat16),
        (1e6, torch.float16),
        (torch.tensor([1.0, 2.0, 1e22]), torch.float32),
    ],
)
def test_what_the_network_cannot_read_is_refused_by_every_method(kind: Any, strength: Any, dtype: torch.dtype) -> None:
    method, h = fitted(kind), torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    largest = float(torch.as_tensor(strength).flatten()[-1])
    with pytest.raises(
        ValueError, match=rf"strength {largest:g} of {kind.__name__} makes activations".replace("+", r"\+")
    ):
        method(h, strength)
    assert method(h, 2.0).isfinite().all()


def test_what_was_unreadable_before_is_not_the_strengths_doing() -> None:
    h = torch.randn(2, 3, 8)
    h[0, 0], h[1, 2, 3] = torch.nan, torch.inf
    steered = fitted(MeanDifference)(h, 2.0)
    assert steered.isfinite().all(-1).sum() == 4


BASE = ["predict", "--config", "configs/responses.yaml", "--trainer.enable_progress_bar=false"]


@pytest.mark.parametrize("strengths", ["[1e22]", "[1.0, 1e38]", "[1e300]"])
def test_responses_at_such_a_strength_leave_nothing_behind(
    strengths: str,
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(torch.ones(32), "vector.pt")
    Path("prompts.txt").write_text("the cat\n\na dog")
    settings = {
        "backbone.init_args.llm": model,
        "backbone.init_args.layers": 1,
        "steering": "vector.pt",
        "method": "null",
    }
    command = [*BASE, *(f"--model.init_args.{name}={value}" for name, value in settings.items())]
    assert main([*command, "--data.init_args.file=prompts.txt", f"--model.init_args.strengths={strengths}"]) == 2
    assert "of MeanDifference makes activations of length" in capsys.readouterr().err
    assert not Path("logs").exists()


@pytest.mark.parametrize("strengths", ["[1.0, 1e22]", "[1e38]"])
def test_a_sweep_over_such_a_strength_chooses_nothing(
    strengths: str,
    model: Path,  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fit("steer_behaviour", model, *pairs(PAIRS), f"--model.init_args.strengths={strengths}") == 2
    assert "of MeanDifference makes activations of length" in capsys.readouterr().err
    assert not list(Path().rglob("*.ckpt"))


NO_NUMBERS: dict[str, Any] = {
    "text": "2",
    "a truth value": True,
    "a list": [1.0],
    "a table": torch.ones(1, 1),
    "a table of rows": torch.ones(2, 3),
    "truth values": torch.tensor([True, False]),
    "complex": torch.tensor(1j),
    "NaN": math.nan,
    "infinite in a row": torch.tensor([1.0, math.inf]),
    "too many": torch.ones(5),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_a_strength_of_python_is_a_number_or_one_for_each_row(name: str) -> None:
    llm = LLM("tiny", 1).adopt(decoder("llama"), letters())
    vector = vectors.of(llm, {llm.sites[0]: fitted(MeanDifference, 32)}, 1.0)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    run: Any = lambda strength: _logits(llm, vector, ids, strength)  # noqa: E731
    with pytest.raises(ValueError, match=r"strength must be a|cannot be given to 2 rows") as caught:
        run(NO_NUMBERS[name])
    assert "\n" not in str(caught.value)
    weak, two = (run(strength) for strength in (1.0, 2.0))
    torch.testing.assert_close(run(torch.tensor([1.0, 2.0])), torch.stack([weak[0], two[1]]))
    torch.testing.assert_close(run(torch.tensor(2)), two)


def _logits(llm: LLM, vector: Any, ids: Tensor, strength: Any) -> Tensor:
    with vectors.edit(llm, vector, strength):
        return llm.model(ids).logits


def test_a_vector_too_long_for_a_file_is_not_written(tmp_path: Path) -> None:
    llm = LLM("tiny", 1).adopt(decoder("llama"), letters())
    vector = vectors.of(llm, {llm.sites[0]: fitted(MeanDifference, 32)}, 1.0)
    with pytest.raises(ValueError, match=r"strength 1e\+38 of MeanDifference makes activations"):
        export(vector, tmp_path / "v.gguf", "gguf", 1e38)
    assert not list(tmp_path.iterdir())
