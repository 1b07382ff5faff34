"""Copies that steering leaves alone are not run again: how many rows run, and that what is scored stays the same.

Scores are compared to 1e-5, as for batches of other sizes: sums round otherwise where other rows stand beside.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, quiet_trainer
from decoders import FAMILIES, MORE, decoder, letters
from torch import Tensor

from lightning_steer.data.mera.module import MERADataModule
from lightning_steer.data.mera.tasks import PocketTask
from lightning_steer.errors import UserError
from lightning_steer.hooks import Edit
from lightning_steer.lm import decoder as decoder_file
from lightning_steer.lm.copies import Copies
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, LastPromptToken
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import MERA, LearnedVector
from lightning_steer.metrics import Answers
from lightning_steer.modules import interventions
from lightning_steer.modules.steering import SteeringAdaptor
from lightning_steer.records import Activations

PROMPTS = ("is it so?", "a long prompt: what is it, then?", "no", "who, me?", "yes: it is")
QUESTIONS = [MultipleChoice(prompt, (" a", " b")) for prompt in PROMPTS]
THRESHOLDS = [1.0, 0.9, 0.5, 0.1]


def model(family: str = "llama", layers: tuple[int, ...] = (1,), **settings: Any) -> LLM:
    settings = {"positions": LastPromptToken(), "normalize": "none", **settings}
    return LLM(family, layers=list(layers), **settings).adopt(decoder(family), letters())


def predicting(width: int, h: Tensor, offset: float = 0.0) -> MERA:
    """A method whose predicted logit error is that of one direction, spread over the rows ``h [n, d]``."""
    method = MERA(width)
    method.fit(Activations(torch.randn(40, width), torch.rand(40), torch.zeros(40, 1).long(), False))
    method.weight = h[:, 0].std().clamp_min(1e-3).reciprocal() * torch.eye(width)[0]
    method.intercept = offset - h[:, 0].mean() * method.weight[0]
    method.along = method.weight / method.weight.square().sum()
    return method


@contextmanager
def rows_of(llm: LLM) -> Iterator[Counter[int]]:
    """Count the rows that each block runs."""
    counted: Counter[int] = Counter()
    handles = [
        block.register_forward_hook(
            lambda _block, _args, out, i=i: counted.update({i: len(out[0] if isinstance(out, tuple) else out)})
        )
        for i, block in enumerate(llm.model.get_submodule(llm.decoder.blocks))
    ]
    try:
        yield counted
    finally:
        for handle in handles:
            handle.remove()


def alone(llm: LLM, edits: dict[str, Edit], copies: int) -> Tensor:
    """Each copy in a forward pass of its own."""
    edited = [
        {
            site: lambda h, i=i, f=function: f(h.expand(copies, *h.shape[1:]))[i : i + 1]
            for site, function in edits.items()
        }
        for i in range(copies)
    ]
    return torch.cat([llm.scores(QUESTIONS, edit) for edit in edited])


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
@torch.no_grad()
def test_only_rows_above_the_threshold_run_again(family: str) -> None:
    llm = model(family)
    (site,), length = llm.sites, len(PROMPTS)
    base, h = llm.observe(QUESTIONS)
    method = predicting(llm.width(site), h[site])
    moved = sum(int((method(h[site], alpha) != h[site]).any(1).sum()) for alpha in THRESHOLDS)
    assert 3 < moved < length * len(THRESHOLDS) - 3
    edits, copies = interventions.together([interventions.steered("", {site: method}, THRESHOLDS)], llm.sites)
    with rows_of(llm) as counted:
        scores = llm.scores(QUESTIONS, edits, copies)
    apart = 1 if llm.packs else 2  # rows of a question
    assert counted == {0: apart * length, 1: apart * length, 2: apart * (length + moved), 3: apart * (length + moved)}
    torch.testing.assert_close(scores[0], base, rtol=1e-5, atol=1e-5)  # at 1 no row is above
    for alpha, steered in zip(THRESHOLDS, scores, strict=True):
        left_alone = (method(h[site], alpha) == h[site]).all(1)
        assert torch.equal(steered[left_alone], scores[0][left_alone])  # bit for bit
        assert not (steered[~left_alone] == scores[0][~left_alone]).all(1).any()
    torch.testing.assert_close(scores, alone(llm, edits, copies), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_row_that_a_later_layer_changes_runs_from_there() -> None:
    """Copy 0 is never changed, copy 1 at the first site in row 0, copy 2 at the second in row 1, copy 3 at both."""
    llm = model(layers=(0, 2))
    changes: dict[str, list[tuple[int, int]]] = {llm.sites[0]: [(1, 0), (3, 4)], llm.sites[1]: [(2, 1), (3, 4), (3, 2)]}

    def edit_at(site: str) -> Edit:
        def function(h: Tensor) -> Tensor:
            h = h.clone()
            for copy, row in changes[site]:
                h[copy, row] += 1.0
            return h

        return function

    edits = {site: edit_at(site) for site in llm.sites}
    order = sorted(range(5), key=lambda i: len(PROMPTS[i]))  # rows run by length, and are edited in that order
    with rows_of(llm) as counted:
        scores = llm.scores(QUESTIONS, edits, 4)
    assert counted == {0: 5, 1: 5 + 2, 2: 5 + 2, 3: 5 + 4}
    torch.testing.assert_close(scores, alone(llm, edits, 4), rtol=1e-5, atol=1e-5)
    changed = {(copy, order[row]) for pairs in changes.values() for copy, row in pairs}
    for copy in range(4):
        for row in range(5):
            assert torch.equal(scores[copy, row], scores[0, row]) == ((copy, row) not in changed)


@torch.no_grad()
def test_no_unchanged_copy_is_left_where_all_are_changed() -> None:
    """Then everything runs as if nothing could be shared: bit for bit."""
    llm = model(positions=AllTokens())
    edits = {llm.sites[0]: lambda h: h + torch.arange(1.0, 4).reshape(3, 1, 1, 1)}
    with rows_of(llm) as counted:
        shared = llm.scores(QUESTIONS, edits, 3)
    assert counted == {0: 5, 1: 5, 2: 15, 3: 15}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_file, "Copies", _apart)
        assert torch.equal(llm.scores(QUESTIONS, edits, 3), shared)


@torch.no_grad()
def test_text_drift_of_unchanged_copies_is_none() -> None:
    llm = model()
    _, h = llm.observe(QUESTIONS)
    method = predicting(llm.width(llm.sites[0]), h[llm.sites[0]])
    edits, copies = interventions.together([interventions.steered("", {llm.sites[0]: method}, THRESHOLDS)], llm.sites)
    drift = llm.drift(PROMPTS, edits, copies)
    each = [llm.drift(PROMPTS, {llm.sites[0]: lambda h, a=alpha: method(h, a)}) for alpha in THRESHOLDS]
    torch.testing.assert_close(
        drift.kl, torch.cat([drift_of_row.kl for drift_of_row in each]), rtol=1e-4, atol=1e-6, equal_nan=True
    )
    assert drift.kl[0].nan_to_num(0).abs().max() < 1e-6
    assert drift.kl[3].nan_to_num(0).max() > 1e-3


def test_what_is_trained_runs_though_it_changes_nothing_yet() -> None:
    """A vector starts at zero; each copy has a gradient of its own."""
    llm = model()
    (site,) = llm.sites
    method = LearnedVector(llm.width(site))
    method.fit(Activations(torch.zeros(0, llm.width(site)), torch.zeros(0), torch.zeros(0, 1).long(), False))
    edits, copies = interventions.together([interventions.steered("", {site: method}, [1.0, 2.0])], [site])
    gradients = []
    for copy in range(copies):
        (parameter,) = method.parameters()
        (gradient,) = torch.autograd.grad(llm.scores(QUESTIONS, edits, copies)[copy, :, 0].sum(), parameter)
        gradients.append(gradient)
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-5)


def test_a_test_of_mera_reports_the_same_from_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole test step at two layers, with its controls."""
    llm = LLM(str(ROOT / "checkpoints/pocket/base"), layers=[1, 3], positions=LastPromptToken())
    data = MERADataModule(PocketTask("sentiment_analysis", 0.1), 100, 30, 30)
    thresholds = [0.9, 0.5, 0.3, 0.1]
    module = SteeringAdaptor(
        llm, MERA, Answers(), thresholds, random_draws=2, random_curve=0, learning_curve=False, resamples=50
    )
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(module, data)
    reports, counts = [], []
    for kind in (Copies, _apart):
        monkeypatch.setattr(decoder_file, "Copies", kind)
        with rows_of(llm) as counted:
            trainer.test(module, data, verbose=False)
        reports.append(module.report)
        counts.append(counted[4])
    assert counts[0] < 0.9 * counts[1]
    for name, estimate in reports[1]["metrics"].items():
        assert reports[0]["metrics"][name]["value"] == pytest.approx(estimate["value"], abs=1e-5, nan_ok=True), name


def _apart(copies: int, rows: int, device: torch.device, shared: bool) -> Copies:
    """Every copy runs, as if none could be shared."""
    return Copies(copies, rows, device, shared and copies == 1)


@pytest.mark.parametrize("inner", ["mlp", "self_attn"])
def test_a_copy_may_be_changed_first_inside_a_later_block(inner: str) -> None:
    """Inside a block the number of rows cannot change: the input of its residual connection has it already."""
    llm = model()
    below, inside = f"{llm.decoder.blocks}.0", f"{llm.decoder.blocks}.1.{inner}"
    strength = torch.tensor([0.0, 1.0, 0.0]).view(-1, 1, 1, 1), torch.tensor([0.0, 0.0, 2.0]).view(-1, 1, 1, 1)
    edits = {below: lambda h: h + strength[0], inside: lambda h: h + strength[1]}
    together = llm.scores(QUESTIONS, edits, 3)
    assert (together - alone(llm, edits, 3)).abs().max() < 1e-5
    assert torch.equal(together[0], llm.scores(QUESTIONS)[0])
    assert (together[1] - together[0]).abs().max() > 1e-3
    assert (together[2] - together[0]).abs().max() > 1e-3


@pytest.mark.parametrize("site", ["model.norm", "model.embed_tokens", "model.layers.1:input", "model.layers"])
def test_a_site_in_no_block_is_refused(site: str) -> None:
    with pytest.raises(UserError, match=f"'{site}' is in none of the blocks model.layers.0"):
        model().scores(QUESTIONS, {site: lambda h: h})


def in_place(h: Tensor) -> Tensor:
    h[-1] += 3.0
    return h


def test_an_edit_in_place_changes_what_it_was_meant_to_only() -> None:
    """The last copy, at the selected token."""
    llm = model()
    site = f"{llm.decoder.blocks}.1"
    together = llm.scores(QUESTIONS, {site: in_place}, 2)
    assert torch.equal(together[0], llm.scores(QUESTIONS)[0])
    new = llm.scores(QUESTIONS, {site: lambda h: torch.cat([h[:-1], h[-1:] + 3.0])}, 2)
    assert (together - new).abs().max() < 1e-5
    texts = ["a long text, read to its end", "and one more"]
    llm.positions = LastPromptToken()
    with llm.steered({site: lambda h: h.add_(3.0)}):
        changed = llm.generate(texts, max_new_tokens=4)
    with llm.steered({site: lambda h: h + 3.0}):
        assert llm.generate(texts, max_new_tokens=4) == changed
