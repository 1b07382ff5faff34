"""The steering adaptor on language models: the three experiments' configurations, from fitting to a report."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_stereoset_data import dev

from lightning_steer.__main__ import main
from lightning_steer.data.base import LabelledBatch
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.positions import GeneratedTokens
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.metrics import Answers
from lightning_steer.metrics.evaluation import ChangeRange
from lightning_steer.modules import fit_data
from lightning_steer.selection.rule import Best, Certified

QUIET = ["--trainer.enable_progress_bar=false", "--model.init_args.random_draws=3", "--model.init_args.resamples=100"]
EXPERIMENTS = {"steer_stereoset": "mean_difference", "steer_behaviour": "mean_difference", "steer_mera": "mera"}


def run(command: str, experiment: str, method: str, llm: Path, *more: str) -> None:
    configs = ["--config", f"configs/{experiment}.yaml", "--config", f"configs/methods/{method}.yaml"]
    backbone = f"--model.init_args.backbone.init_args.llm={llm}"
    assert main([command, *configs, backbone, *QUIET, *more]) == 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "pocket").symlink_to(ROOT / "checkpoints" / "pocket")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_writes_its_report(experiment: str, pocket_decoder: Path, here: Path) -> None:
    method = EXPERIMENTS[experiment]
    run("fit", experiment, method, pocket_decoder)
    run("test", experiment, method, pocket_decoder)
    (report_path,) = (here / "logs" / experiment).rglob("report.json")
    report = json.loads(report_path.read_text())
    assert report["experiment"] == experiment
    graded = {"constant_class"} if experiment == "steer_mera" else set()
    assert ("accuracy_over_constant_class" in report["metrics"]) == bool(graded)
    assert set(report["baselines"]) == {"baseline", "random_control", "mean_ablation"} | graded
    for estimate in report["metrics"].values():
        assert {"value", "low", "high", "n"} <= set(estimate)
    if "damage" in report["curves"]:  # every strength's, from none to the chosen one's
        curve = report["curves"]["damage"]
        values = dict(zip(curve["x"], curve["reference_kl"]["value"], strict=True))
        assert values[0] == 0
        chosen = report["metrics"]["strength"]["value"]
        assert chosen == 0 or values[chosen] == pytest.approx(report["metrics"]["reference_kl"]["value"], rel=1e-6)
    assert ("damage" in report["curves"]) == (experiment != "steer_mera")
    assert f"Why this strength: {report['choice']}." in report_path.with_name("report.md").read_text()
    assert (report_path.parent / "dose_response.png").is_file()


needs_pocket = pytest.mark.skipif(
    not (ROOT / "checkpoints/pocket/base/model.safetensors").is_file(), reason="no models"
)


@needs_pocket
def test_stereotypes_give_way_on_the_model_that_ships(here: Path) -> None:
    base = Path("checkpoints/pocket/base")
    run("fit", "steer_stereoset", "mean_difference", base)
    run("test", "steer_stereoset", "mean_difference", base)
    (report_path,) = (here / "logs" / "steer_stereoset").rglob("report.json")
    metrics = json.loads(report_path.read_text())["metrics"]
    assert metrics["margin_change"]["low"] > 0  # opposites gained on stereotypes, for terms that were never fitted
    assert metrics["fidelity"]["low"] > 0


@needs_pocket
def test_a_behaviour_is_promoted_on_the_model_that_ships(here: Path) -> None:
    base = Path("checkpoints/pocket/base")
    run("fit", "steer_behaviour", "mean_difference", base)
    run("test", "steer_behaviour", "mean_difference", base)
    (report_path,) = (here / "logs" / "steer_behaviour").rglob("report.json")
    assert json.loads(report_path.read_text())["metrics"]["margin_change"]["low"] > 0


def test_graded_rows_bring_the_networks_own_error(pocket_decoder: Path) -> None:
    llm = LLM(str(pocket_decoder), layers=[1, 3])
    llm.load()
    questions = [
        MultipleChoice("Message: free dinner. Answer:", (" ham", " spam")),
        MultipleChoice("Report: sales. Answer:", (" ham", " spam")),
    ]
    batch = LabelledBatch(questions, torch.tensor([0, 1]), torch.tensor([0, 1]), torch.arange(2))
    columns = fit_data.read(llm, Answers(), batch)
    probability = llm.scores(questions)[0].softmax(-1)
    expected = 1 - probability[[0, 1], [0, 1]]
    torch.testing.assert_close(columns["error"][:, 0].float(), expected.float(), rtol=1e-5, atol=1e-6)
    alone = llm.activations([MultipleChoice(q.prompt) for q in questions])
    for site in llm.sites:
        torch.testing.assert_close(columns[f"h/{site}"][:, 0], alone[site], rtol=1e-5, atol=1e-6)
    seen = fit_data.activations(columns, llm.sites[0], 2, False)
    assert seen.h.shape == (2, 16)
    assert seen.value.tolist() == [[0], [1]]


def test_what_the_continuation_adds_is_read_alone(pocket_decoder: Path) -> None:
    """``GeneratedTokens`` reads the option's tokens: an independent forward pass says what they are."""
    llm = LLM(str(pocket_decoder), layers=2, read_positions=GeneratedTokens())
    llm.load()
    questions = [MultipleChoice("The hill bakers are", (" polite.",)), MultipleChoice("They", (" are rude",))]
    states = llm.activations(questions)[llm.sites[0]]
    for row, question in enumerate(questions):
        prompt, whole = (
            llm.tokenizer(text)["input_ids"] for text in (question.prompt, question.prompt + question.choices[0])
        )
        hidden = llm.model(torch.tensor([whole]), output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(states[row], hidden[0, len(prompt) :].mean(0), rtol=1e-5, atol=1e-6)


def test_drift_on_neutral_text(pocket_decoder: Path) -> None:
    """KL of every next token and log-probabilities, against two plain forward passes; nothing moves at zero."""
    llm = LLM(str(pocket_decoder), layers=2, tokens_per_batch=24)
    llm.load()
    texts = ["The hill bakers are kind.", "In spring the fox runs.", "Tell me a story."]
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    site = llm.sites[0]
    push = torch.stack([0 * vector, vector])[:, None, None]
    drift = llm.drift(texts, {site: lambda h: h + push}, 2)
    assert (drift.kl[0].nan_to_num() == 0).all()
    torch.testing.assert_close(drift.base, drift.steered[0])
    for i, text in enumerate(texts):
        ids = torch.tensor([llm.tokenizer(text)["input_ids"]])
        base = llm.model(ids).logits[0].log_softmax(-1)
        handle = llm.model.get_submodule(site).register_forward_hook(lambda _m, _a, out: out + vector)
        steered = llm.model(ids).logits[0].log_softmax(-1)
        handle.remove()
        kl = (base.exp() * (base - steered)).sum(-1).double()
        torch.testing.assert_close(drift.kl[1, i, : ids.shape[1]], kl, rtol=1e-4, atol=1e-6)
        logp = steered[:-1].gather(1, ids[0, 1:, None]).sum().double()
        torch.testing.assert_close(drift.steered[1, i], logp, rtol=1e-5, atol=1e-4)
        assert drift.tokens[i] == ids.shape[1] - 1


def rows(gains: int, harms: int, n: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    base, steered = torch.zeros(n), torch.zeros(n, 1)
    base[gains : gains + harms] = 1
    steered[:gains] = 1
    return base, steered


WHOLE, GRADED = ChangeRange(-1.0, 1.0, whole=True), ChangeRange(-1.0, 1.0, whole=False)


def test_a_certified_choice_abstains_where_the_best_does_not() -> None:
    base, steered = rows(3, 1)
    loss = 1 - steered
    assert Best(50).choose([1.0], base, steered, loss).index == 0
    choice = Certified(delta=0.05).choose([1.0], base, steered, loss, WHOLE)
    assert choice.index is None
    assert "net gains are needed" in choice.reason
    choice = Certified(delta=0.05).choose([1.0], *rows(30, 0), 1 - rows(30, 0)[1], WHOLE)
    assert choice.index == 0
    assert choice.bound > 0


def test_harm_on_a_graded_success_is_not_certified() -> None:
    """0.1.0 took every success that was not 0, harm and half a tie included, for a gain."""
    base, loss = torch.zeros(200), torch.ones(200, 1)
    harm = torch.where(torch.arange(200) < 100, -1.0, 0.0).unsqueeze(1)
    assert Certified().choose([1.0], base, harm, loss, GRADED).index is None
    tied = torch.full((200, 1), 0.5)
    assert Certified().choose([1.0], base + 0.5, tied, loss, GRADED).index is None
    assert Certified().choose([1.0], base, -harm, loss, GRADED).bound > 0.2
    with pytest.raises(ValueError, match=r"declared to be 0 or 1 .* changes by 0\.5"):
        Certified().choose([1.0], base, tied, loss, WHOLE)
    with pytest.raises(ValueError, match="does not declare"):
        Certified().choose([1.0], base, tied, loss)


def test_a_certificate_counts_clusters_not_rows() -> None:
    """Three of ten clusters that moved as one are three gains, not 75."""
    cluster = torch.arange(250) // 25
    base, steered = torch.zeros(250), (cluster < 3).double().unsqueeze(1)
    assert Certified().choose([1.0], base, steered, 1 - steered, WHOLE).index == 0
    assert Certified().choose([1.0], base, steered, 1 - steered, WHOLE, cluster).index is None


def test_the_notebooks_setting_is_one_config(pocket_decoder: Path, here: Path) -> None:
    source = f"--data.init_args.source={dev(here, 240)}"
    small = [source, "--data.init_args.per_type=20", "--model.init_args.backbone.init_args.layers=[0, 1]"]
    run("fit", "steer_stereoset_notebook", "mean_difference", pocket_decoder, *small)
    run("test", "steer_stereoset_notebook", "mean_difference", pocket_decoder, *small)
    report = json.loads((here / "logs/steer_stereoset_notebook/mean_difference/report.json").read_text())
    assert {"p_stereotype", "p_anti", "p_unrelated", "ss", "lms", "icat", "fidelity"} <= set(report["metrics"])


def test_responses_follow_a_fit_of_the_behaviour_config(pocket_decoder: Path, here: Path) -> None:
    run("fit", "steer_behaviour", "mean_difference", pocket_decoder)
    (here / "prompts.txt").write_text("What should the helper do?\n\nTell me a story.\n")
    command = ["predict", "--config", "configs/responses.yaml", "--model.init_args.max_new_tokens=4", QUIET[0]]
    assert main([*command, f"--model.init_args.backbone.init_args.llm={pocket_decoder}"]) == 0
    (written,) = (here / "logs/responses/base").glob("*.jsonl")
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(lines) == 2 * (1 + 3)  # unsteered, and three strengths
    assert (here / "logs/responses/base/responses.md").is_file()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("--model.init_args.backbone.init_args.layers=1", "sites model.layers.2, not model.layers.1"),
        ("--model.init_args.method=RandomDirection", "method MeanDifference, not RandomDirection"),
        ("--model.init_args.method=LEACE", "method MeanDifference, not LEACE"),
    ],
)
def test_responses_are_steered_by_what_was_fitted_there(
    other: str, expected: str, pocket_decoder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "steer_behaviour", "mean_difference", pocket_decoder)
    (here / "prompts.txt").write_text("What should the helper do?\n")
    command = ["predict", "--config", "configs/responses.yaml", "--model.init_args.max_new_tokens=4", QUIET[0]]
    command += [f"--model.init_args.backbone.init_args.llm={pocket_decoder}", other]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Error(s) in loading" not in error
    code = main([*command, "--accept_mismatch", "true"])
    if "LEACE" in other:  # its tensors are others: nothing can be accepted
        assert code == 2
        assert "does not fit LEACE at model.layers.2: it holds" in capsys.readouterr().err
    else:
        assert code == 0
        assert expected in (here / "logs/responses/base/responses.md").read_text()
