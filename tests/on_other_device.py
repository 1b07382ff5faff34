"""Everything runs on a device that is not the CPU, gives what the CPU gives, and mixes no devices."""

import io
import json
from pathlib import Path

import laws
import pytest
import test_methods
import torch
from conftest import rows
from decoders import decoder, letters
from other_device import ELSEWHERE, TRAINER, Device, waits
from torch import Tensor

from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.module import BehaviourDataModule
from lightning_steer.data.behaviours.pairs import ContrastPair, Pairs
from lightning_steer.lm import loading
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import AllTokens, GeneratedTokens, LastPromptToken, Positions, TokensFrom
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.methods import LearnedVector, MeanDifference
from lightning_steer.modules.sampling import Sampler
from lightning_steer.probes.lasso import lasso
from lightning_steer.probes.moments import Moments
from lightning_steer.probes.normal_equations import NormalEquations
from lightning_steer.records import Activations
from lightning_steer.workflows.fit import fit
from lightning_steer.workflows.search import Search

QUESTIONS = [MultipleChoice("hello there", (" ab", " cde")), MultipleChoice("who", (" x", " yz"))]
METHODS = {
    **test_methods.SINGLE,
    **{name: test_methods.VARIANTS[name] for name in ("Composed", "Gated LEACE", "Gated composition")},
}


def language_model(device: torch.device, positions: Positions | None = None, dtype: torch.dtype = torch.float32) -> LLM:
    llm = LLM("random", layers=[1, 2], positions=positions)
    return llm.adopt(decoder("llama", dtype).to(device), letters())


def to(device: torch.device, seen: Activations) -> Activations:
    return Activations(*(x.to(device) if isinstance(x, Tensor) else x for x in seen))


# ---- the device itself refuses what a GPU refuses


def test_devices_do_not_mix() -> None:
    here = torch.ones(3)
    with Device():
        there = here.to(ELSEWHERE)
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here.add_(there),
            lambda: here[torch.zeros(1, dtype=torch.int64, device=ELSEWHERE)],
            lambda: torch.rand(2, device=ELSEWHERE, generator=torch.Generator()),
            lambda: torch.stack([there.sum(), here.sum()]),
        ):
            with pytest.raises(RuntimeError):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        waits.clear()
        assert (there * here.sum() + 1).cpu().tolist() == [4.0, 4.0, 4.0]
        assert waits["to the CPU"] == 1
        copied = io.BytesIO()
        torch.save(there, copied)


def test_an_edit_from_another_device_is_seen() -> None:
    """What the laws below would say of a vector that was left on the CPU."""
    with Device():
        llm = language_model(ELSEWHERE)
        vector = torch.ones(32)
        with pytest.raises(RuntimeError, match=r"\[32\] on cpu"):
            llm.scores(QUESTIONS, {llm.sites[0]: lambda h: h + vector})


# ---- the language model


def everything(device: torch.device, positions: Positions) -> dict[str, Tensor | list[list[int]]]:
    llm = language_model(device, positions)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0)).to(device)
    strength = torch.linspace(-1, 1, 3, device=device).view(-1, 1, 1, 1)
    sweep = {site: lambda h: h + strength * vector for site in llm.sites}
    sampler = Sampler(["a", "b"], 0, 1.0, 0.9)
    results = {
        "scores": llm.scores(QUESTIONS, sweep, 3),
        "activations": llm.activations(QUESTIONS)[llm.sites[1]],
        "observe": llm.observe(QUESTIONS)[0],
        "sensitivity": llm.sensitivity(QUESTIONS)[llm.sites[1]],
        "drift": llm.drift(["some text here", "more"], sweep, 3).kl.nan_to_num(0),
        "generated": llm.continued(["hello", "who is there"], {llm.sites[0]: lambda h: h + vector}, 6),
        "sampled": llm.continued(["hello", "who is there"], {}, 6, logits_processor=[sampler]),
    }
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in results.items()}


@pytest.mark.parametrize("positions", [AllTokens(), LastPromptToken(), GeneratedTokens(), TokensFrom(-2)])
def test_a_language_model_gives_what_it_gives_on_the_cpu(positions: Positions) -> None:
    expected = everything(torch.device("cpu"), positions)
    with Device():
        results = everything(ELSEWHERE, positions)
    for name, value in expected.items():
        if isinstance(value, Tensor):  # attention is another kernel
            torch.testing.assert_close(results[name], value, rtol=1e-4, atol=1e-4)
        else:
            assert results[name] == value, name


def test_a_trainer_on_a_gpu_loads_a_model_without_accelerate(pocket_decoder: Path) -> None:
    """Lightning makes its device the default while a module is set up, which transformers takes as a device map."""
    with Device(), ELSEWHERE:
        model, _ = loading.load(str(pocket_decoder))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_the_cpu_waits_once_for_each_layer_that_is_steered() -> None:
    """For the check that an activation can still be read; another wait would hold up every step of a generation."""
    with Device():
        llm = language_model(ELSEWHERE)
        methods = [MeanDifference(32).fit(to(ELSEWHERE, rows(d=32))) for _ in llm.sites]
        edits = {site: lambda h, m=m: m(h, 0.5) for site, m in zip(llm.sites, methods, strict=True)}
        ids = torch.zeros(1, 5, dtype=torch.int64, device=ELSEWHERE)
        plain, steered = [], []
        for counted, functions in ((plain, {}), (steered, edits)):
            with llm.steered(functions), torch.no_grad():
                waits.clear()
                llm.model(ids, use_cache=False)
                counted.append(waits.total())
    assert steered[0] - plain[0] <= len(llm.sites)


# ---- methods and probes


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name, marks=[pytest.mark.slow] * (name == "SAEMERA")) for name, make in METHODS.items()],
)
def test_a_method_is_fitted_and_steers_as_on_the_cpu(make: laws.Make) -> None:
    h = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    strengths = torch.tensor([0.25, 1.0, 0.5])
    method = laws.trained(make, rows())
    expected = [method(h, 0.5), method(h, strengths), method(h.bfloat16(), strengths)]
    with Device():
        there = make(8).fit(to(ELSEWHERE, rows()))
        with torch.no_grad():
            for parameter in there.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(
                    ELSEWHERE
                )
        assert {tensor.device for tensor in (*there.parameters(), *there.buffers())} <= {ELSEWHERE}
        rows_there, strengths_there = h.to(ELSEWHERE), strengths.to(ELSEWHERE)
        waits.clear()
        rows_steered = [there(rows_there, 0.5)]
        assert waits["to the CPU"] <= 1
        rows_steered += [there(rows_there, strengths_there), there(rows_there.bfloat16(), strengths_there)]
        moved = method.to(ELSEWHERE)(rows_there, 0.5).cpu()  # fitted on the CPU, used elsewhere
        rows_steered = [x.cpu() for x in rows_steered]
    for a, b in zip(rows_steered, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved, expected[0], rtol=1e-5, atol=1e-5)


def test_lasso_paths_have_the_cpus_objective() -> None:
    h = torch.randn(3, 80, 6, generator=torch.Generator().manual_seed(0))
    y = h[0, :, 0] + 0.5 * h[0, :, 1] + 0.1 * torch.randn(80, generator=torch.Generator().manual_seed(1))
    here = lasso(NormalEquations.of(Moments.like(h, y).add(h, y)), [0.1, 0.01])
    with Device():
        h, y = h.to(ELSEWHERE), y.to(ELSEWHERE)
        there = lasso(NormalEquations.of(Moments.like(h, y).add(h, y)), [0.1, 0.01])
        assert there.fit.weight.device == ELSEWHERE
        objective, converged = there.objective.cpu(), bool(there.converged.all())
    assert converged
    torch.testing.assert_close(objective, here.objective, rtol=2e-6, atol=0)


# ---- search and whole experiments


@pytest.mark.parametrize("method", [MeanDifference, LearnedVector])
def test_a_search_finds_what_it_finds_on_the_cpu(method: type) -> None:
    pairs = [ContrastPair(f"is it {'xyzuvw'[i // 3]}{'abc'[i % 3]}", " yes", " no") for i in range(18)]
    grids = []
    for device in (torch.device("cpu"), ELSEWHERE):
        with Device():
            llm = LLM("random", layers=[0, 1], read_positions=GeneratedTokens(), normalize="tokens")
            llm.adopt(decoder("llama").to(device), letters())
            search = Search(llm, BehaviourDataModule(Pairs(pairs), None, False, 0.4, 0.3), method, ["a long text here"])
            if search.trained:
                for layer in range(2):
                    search.train(layer, 1)
            grids.append(search.grid([0.5, 1.0]))
    torch.testing.assert_close(grids[1].effect, grids[0].effect, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(grids[1].damage, grids[0].damage, rtol=1e-3, atol=1e-4)


def test_a_model_stays_where_it_was_put() -> None:
    """A trainer takes it to its own device, and leaves it on the CPU."""
    pairs = [ContrastPair(f"is it {'xyzu'[i // 3]}{'abc'[i % 3]}", " yes", " no") for i in range(12)]
    with Device():
        llm = language_model(ELSEWHERE)
        fit(llm, pairs, 1)
        assert llm.device == ELSEWHERE


EXPERIMENTS = {
    "steer_stereoset": ("mean_difference", []),
    "steer_behaviour": ("leace", []),
    "steer_mera": ("mera", [f"--data.init_args.{part}=60" for part in ("train", "calibration", "test")]),
}


@pytest.mark.parametrize(
    "experiment",
    ["steer_mera", *(pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS if name != "steer_mera")],
)
def test_an_experiment_runs_from_fitting_to_its_report(experiment: str, pocket_decoder: Path, workshop: Path) -> None:
    method, sizes = EXPERIMENTS[experiment]
    options = [f"--config=configs/{experiment}.yaml", f"--config=configs/methods/{method}.yaml", *sizes, *TRAINER]
    options += ["--model.init_args.random_draws=3", "--model.init_args.resamples=100"]
    options += [f"--model.init_args.backbone.init_args.llm={pocket_decoder}", "--trainer.enable_progress_bar=false"]
    for command in ("fit", "test"):
        with Device():
            assert main([command, *options]) == 0
    (path,) = (workshop / "logs" / experiment).rglob("report.json")
    assert json.loads(path.read_text())["metrics"]
