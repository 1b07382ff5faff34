"""Causal-LM training: the loss is nats per token whatever the padding and sharing; what is saved loads alone."""

import json
from itertools import pairwise

import lightning as L
import pytest
import torch
from conftest import ROOT, quiet_trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_steer.cli import CLI
from lightning_steer.data.pocket.module import PocketDataModule
from lightning_steer.data.text import TextDataModule
from lightning_steer.data.tokens import TextRow, together
from lightning_steer.modules.language_model import LanguageModel

TINY = {
    "llama": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "gpt_neox": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
}


def data(**settings):
    return PocketDataModule(**{"tokens_per_step": 128, "steps_per_epoch": 4, "val_documents": 40, **settings})


def built(family="llama", **settings):
    """A module with its network, as a trainer makes it."""
    L.seed_everything(0, verbose=False)
    module = LanguageModel(architecture={"model_type": family, **TINY[family]}, **settings)
    trainer = quiet_trainer()
    trainer.datamodule = data()  # type: ignore[attr-defined]
    module.trainer = trainer
    module.configure_model()
    module.eval()
    module.log = lambda *_args, **_more: None  # there is no loop to log to
    return module


def fitted(folder, module=None, source=None, **settings):
    L.seed_everything(0, verbose=False)
    module = module or LanguageModel(
        architecture={"model_type": "llama", **TINY["llama"]}, learning_rate=1e-2, warm_up=2
    )
    callback = ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=[callback], **settings)
    trainer.fit(module, datamodule=source or data())
    return module


def rows(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [TextRow(torch.randint(7, 500, (n,), generator=generator).tolist(), 1 + n % 3) for n in lengths]


@pytest.mark.parametrize("family", TINY)
def test_loss_is_that_of_a_loop_over_single_tokens(family):
    """One forward pass for every token, of nothing but what stands before it."""
    module, batch = built(family), together(rows(5, 9, 3), pad=0)
    total = 0.0
    for row in rows(5, 9, 3):
        for position in range(row.start, len(row.ids)):
            logits = module.network(input_ids=torch.tensor([row.ids[:position]])).logits[0, -1]
            total -= float(logits.double().log_softmax(-1)[row.ids[position]])
    assert float(module.training_step(batch, 0)) == pytest.approx(total / int(batch.total), rel=1e-5)
    assert float(module.nats(batch).sum()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("family", TINY)
def test_padding_does_not_change_the_loss(family):
    module = built(family)
    alone = torch.stack([module.nats(together([row], pad=0))[0] for row in rows(4, 12, 7)])
    assert torch.allclose(module.nats(together(rows(4, 12, 7), pad=0)), alone, atol=1e-4)
    assert torch.allclose(module.nats(together(rows(4, 12, 7), pad=9)), alone, atol=1e-4)


def gradient(module, batch, world=1):
    module.zero_grad()
    (module.nats(batch).sum() * world / batch.total).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters()])


def test_processes_average_to_the_gradient_of_one(monkeypatch):
    """Their shares hold unequally many tokens; each one's own mean would not average to the mean of all."""
    module, every = built(), rows(20, 4, 9, 5, 6)
    whole = gradient(module, together(every, 0))
    losses, parts = [], []
    for rank in range(2):
        batch = together(every, 0, slice(rank, None, 2))
        monkeypatch.setattr(type(module.trainer), "world_size", 2)
        module.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        losses.append(float(loss))
        parts.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    monkeypatch.undo()
    assert torch.allclose(sum(parts) / 2, whole, atol=1e-6)
    assert sum(losses) / 2 == pytest.approx(float(module.training_step(together(every, 0), 0)), rel=1e-5)


def test_a_process_without_rows_goes_along():
    module = built()
    loss = module.training_step(together(rows(5), 0, slice(1, None, 2)), 0)
    loss.backward()
    assert float(loss) == 0
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


def test_training_lowers_the_loss_and_tells_the_distance_to_the_entropy(tmp_path):
    module = built()
    before = float(torch.cat([module.nats(b) for b in module.trainer.datamodule.val_dataloader()]).sum())
    module = fitted(tmp_path, source=data(steps_per_epoch=30))
    batches = list(module.trainer.datamodule.val_dataloader())
    tokens = sum(int(b.total) for b in batches)
    measured = module.trainer.callback_metrics
    assert float(measured["val/loss"]) < 0.8 * before / tokens
    nats = torch.cat([module.nats(b) for b in batches]).double()
    exact = -torch.cat([b.logp for b in batches])
    assert float(measured["val/loss"]) == pytest.approx(float(nats.sum()) / tokens, rel=1e-5)
    assert float(measured["val/gap"]) == pytest.approx(float((nats - exact).sum()) / tokens, rel=1e-4)


def test_what_is_saved_loads_alone_and_is_the_best(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = fitted(tmp_path, source=data(chat_share=0.5))
    network, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    batch = next(iter(module.trainer.datamodule.val_dataloader()))
    module.eval()
    assert torch.equal(network(input_ids=batch.ids).logits, module(batch.ids))
    assert tokenizer.get_vocab() == module.tokenizer.get_vocab()
    assert tokenizer.chat_template == module.tokenizer.chat_template is not None
    assert network.config.eos_token_id == tokenizer.eos_token_id
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(best["network.model.norm.weight"], network.model.norm.weight)
    assert not list(tmp_path.glob("*.bin"))
    assert not list(tmp_path.glob(".writing*"))


def test_the_best_is_saved_not_the_last(tmp_path):
    """A rate that is far too high makes every further epoch worse."""

    class Worse(LanguageModel):
        def rate(self, step):
            return 1.0 if step < 4 else 1e4

    module = Worse(architecture={"model_type": "llama", **TINY["llama"]}, learning_rate=3e-3)
    fitted(tmp_path, module, max_epochs=2)
    from transformers import AutoModelForCausalLM

    best = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).model.norm.weight
    assert torch.equal(saved, best["network.model.norm.weight"])
    assert not torch.equal(saved, module.network.model.norm.weight)


def test_going_on_from_a_folder_starts_with_its_weights(tmp_path):
    first = fitted(tmp_path / "base")
    module = LanguageModel(llm=str(tmp_path / "base"), learning_rate=1e-12)
    fitted(tmp_path / "tuned", module, data(chat_share=1.0))
    for a, b in zip(first.network.parameters(), module.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert (tmp_path / "tuned" / "chat_template.jinja").is_file()
    assert not (tmp_path / "base" / "chat_template.jinja").is_file()


def test_a_users_own_text(tmp_path):
    fitted(tmp_path / "base")
    (tmp_path / "sms.jsonl").write_text(
        "\n".join(json.dumps({"q": f"Message: {word} free. Answer:", "a": " spam."}) for word in ["prize", "cash"] * 20)
    )
    settings = {"prompt": "q", "completion": "a", "tokens_per_step": 60, "val_share": 0.2}
    source = TextDataModule(str(tmp_path / "sms.jsonl"), str(tmp_path / "base"), **settings)
    module = fitted(
        tmp_path / "sms", LanguageModel(llm=str(tmp_path / "base"), warm_up=0, learning_rate=1e-2), source, max_epochs=8
    )
    assert float(module.trainer.callback_metrics["val/loss"]) < 0.5
    assert "val/gap" not in module.trainer.callback_metrics


def test_a_run_is_reproduced_bit_for_bit_also_when_resumed(tmp_path):
    settings = {"max_epochs": 2}
    whole = fitted(tmp_path / "a", **settings).state_dict()
    again = fitted(tmp_path / "b", **settings).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)

    class Killed(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.global_step == 6:
                raise RuntimeError("killed")

    module = LanguageModel(architecture={"model_type": "llama", **TINY["llama"]}, learning_rate=1e-2, warm_up=2)
    L.seed_everything(0, verbose=False)
    callback = ModelCheckpoint(tmp_path / "c", "last", save_on_train_epoch_end=True)
    with pytest.raises(RuntimeError, match="killed"):
        quiet_trainer(enable_checkpointing=True, callbacks=[callback, Killed()], **settings).fit(module, data())
    module = LanguageModel(architecture={"model_type": "llama", **TINY["llama"]}, learning_rate=1e-2, warm_up=2)
    callback = ModelCheckpoint(tmp_path / "c", "end")
    trainer = quiet_trainer(enable_checkpointing=True, callbacks=[callback], **settings)
    trainer.fit(module, data(), ckpt_path=tmp_path / "c" / "last.ckpt", weights_only=True)
    assert all(torch.equal(whole[name], value) for name, value in module.state_dict().items())


def test_norms_are_not_decayed(tmp_path):
    module = fitted(tmp_path, LanguageModel(architecture={"model_type": "llama", **TINY["llama"]}, weight_decay=0.3))
    optimizer = module.trainer.optimizers[0]
    decayed, undecayed = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    for name, parameter in module.named_parameters():
        assert (id(parameter) in undecayed) == ("norm" in name), name
    assert len(decayed) + len(undecayed) == len(list(module.parameters()))


def test_the_rate_rises_stays_and_falls():
    module = built(warm_up=9, flat=0.5, floor=0.1)
    module.trainer.fit_loop.epoch_loop.max_steps = 100
    module.trainer.__class__ = type("Steps", (L.Trainer,), {"estimated_stepping_batches": 100})
    rates = [module.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert all(rate == 1 for rate in rates[9:51])
    assert all(a > b for a, b in pairwise(rates[50:]))
    assert rates[75] == pytest.approx(0.1 + 0.9 / 2)
    assert rates[100] == pytest.approx(0.1)


def test_a_run_without_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_epochs"):
        fitted(tmp_path, max_epochs=-1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "either llm"),
        ({"llm": "a", "architecture": {"model_type": "llama"}}, "either llm"),
        ({"architecture": {"hidden_size": 4}}, "model_type"),
        ({"llm": "a", "learning_rate": 0.0}, "learning_rate"),
        ({"llm": "a", "flat": 1.5}, "flat"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        LanguageModel(**settings)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    small = LanguageModel(architecture={"model_type": "llama", "vocab_size": 40, **TINY["llama"]})
    with pytest.raises(ValueError, match="embeds only 40"):
        fitted(tmp_path, small)


def test_nothing_heavy_is_loaded_to_parse_a_configuration(monkeypatch):
    """The network is built in the trainer; before, not even its library is needed."""
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    LanguageModel(llm="checkpoints/pocket/base")
    PocketDataModule()
    TextDataModule("a.txt", "b")


@pytest.mark.parametrize("name", ["pocket", "pocket_tuned", "pocket_narrow"])
def test_configurations_run(name, workshop):
    short = ["--data.init_args.steps_per_epoch=2", "--trainer.max_epochs=1", "--data.init_args.val_documents=30"]
    short += ["--trainer.enable_progress_bar=false", "--data.init_args.tokens_per_step=100"]
    CLI(["fit", "--config", "configs/pocket.yaml", *short])
    if name != "pocket":
        CLI(["fit", "--config", f"configs/{name}.yaml", *short])
    folder = workshop / "checkpoints/pocket" / name.replace("pocket_", "").replace("pocket", "base")
    assert {"model.safetensors", "config.json", "tokenizer.json", "best.ckpt"} <= {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_the_shipped_training_begins_the_same_twice(workshop):
    """60 steps of the real thing, as a user would start it: the same bytes."""
    short = ["--data.init_args.steps_per_epoch=60", "--trainer.max_epochs=1", "--data.init_args.val_documents=200"]
    for run in ("a", "b"):
        CLI(["fit", "--config", "configs/pocket.yaml", "--run", run, "--trainer.enable_progress_bar=false", *short])
    first, second = ((workshop / "checkpoints/pocket" / run / "model.safetensors").read_bytes() for run in "ab")
    assert first == second


# ---- the models that ship


@pytest.fixture(params=["base", "tuned"])
def shipped(request):
    folder = ROOT / "checkpoints/pocket" / request.param
    if not (folder / "model.safetensors").is_file():
        pytest.skip("not trained yet: make pocket")
    return folder


def test_shipped_models_are_small_and_complete(shipped):
    left = (".ckpt", ".yaml")  # of a fit by hand: ignored by git
    files = {path.name: path.stat().st_size for path in shipped.iterdir() if path.suffix not in left}
    positive = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    positive |= {"README.md", "evaluation.json", "training.json"}
    positive |= {"chat_template.jinja"} if shipped.name == "tuned" else set()
    assert sum(files.values()) < 10e6
    assert set(files) == positive


@pytest.mark.slow
def test_shipped_models_keep_what_their_card_says(shipped):
    """On samples of their own, smaller than the card's."""
    from lightning_steer.studies.pocket import errors, measures
    from lightning_steer.studies.pocket.reader import PocketReader

    reader, tuned = PocketReader(shipped), shipped.name == "tuned"
    assert measures.loss(reader, 0.7 if tuned else 0.0, 400, seed=77)["gap, all"].value < 0.03
    assert measures.traits(reader, "neutral")["traits, held targets"].value > (0.85 if tuned else 0.9)
    errors_of_task = errors.task(reader, "sentiment_analysis", tuned, 400, seed=77)
    assert errors_of_task["error against planted"].value > 0.9
    assert 0.6 < errors_of_task["accuracy"].value < 0.9


def test_generated_text_is_of_the_language(shipped):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, tokenizer = AutoModelForCausalLM.from_pretrained(shipped), AutoTokenizer.from_pretrained(shipped)
    ids = tokenizer("In the morning, the grey cat", return_tensors="pt")
    written = tokenizer.decode(network.generate(**ids, max_new_tokens=40, do_sample=False)[0], skip_special_tokens=True)
    assert written.startswith("In the morning, the grey cat")
    assert written.endswith(".")
