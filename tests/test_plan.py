"""Plans: parameters, memory and operations without weights; the command, its refusals, and what it proposes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from decoders import FAMILIES, decoder, letters
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from lightning_steer.__main__ import main
from lightning_steer.data.behaviours.pairs import read_pairs
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.language_model import LLM
from lightning_steer.lm.tokens import MultipleChoice
from lightning_steer.plan import machine, phases, planning, table
from lightning_steer.plan.blank import Blank, stored_dtype
from lightning_steer.plan.known import KNOWN
from lightning_steer.plan.phase import Phase, generation, scored
from lightning_steer.plan.rows import Counter, TokenRows
from lightning_steer.workflows.steer import searched

PAIRS = str(ROOT / "configs/pairs.jsonl")
POCKET = "checkpoints/pocket/base"
MEMORY = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
from lightning_steer.lm.decoder import Decoder
from lightning_steer.lm.tokens import TokenBatch
from lightning_steer.metrics.drift import next_token_kl
from lightning_steer.plan.blank import Blank

family, dtype = sys.argv[1], getattr(torch, sys.argv[2])
sizes = dict(hidden_size=256, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4, head_dim=32)
config = AutoConfig.for_model(family, intermediate_size=1024, vocab_size=16000, **sizes)
blank = Blank(config, dtype)
rows = lambda n, t: TokenBatch(torch.zeros(n, t, dtype=torch.int64), None, None, None, None)


def resident(field):
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))


def measured(function):
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts here
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


with torch.no_grad():
    decoder = Decoder(AutoModelForCausalLM.from_config(config, dtype=dtype).eval())
    decoder.states(rows(2, 8))
    decoder.logits(torch.zeros(2, 256, dtype=dtype))  # libraries set up what they need once
    h = torch.zeros(600, 256, dtype=dtype)

    def compare():
        unsteered = decoder.logits(h).log_softmax(-1)
        for _ in range(2):
            steered = decoder.logits(h).log_softmax(-1)
            next_token_kl(unsteered, steered)

    print(json.dumps([
        [blank.forward(96, 64).memory, measured(lambda: decoder.states(rows(96, 64)))],
        [blank.compared(600).memory, measured(compare)],
    ]))
"""


@pytest.fixture
def config_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with the configuration of a tiny decoder of eight blocks, and nothing else."""
    monkeypatch.chdir(tmp_path)
    decoder("llama", num_hidden_layers=8).config.save_pretrained("model")
    assert os.listdir("model") == ["config.json"]
    return "model"


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    code = main(["plan", *arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that refuses a command."""
    try:
        code: Any = main(["plan", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_and_weights_are_those_of_the_loaded_model(family: str, dtype: torch.dtype) -> None:
    real = decoder(family, dtype)
    blank = Blank(real.config, dtype)
    assert blank.parameters == sum(weight.numel() for weight in real.parameters())
    tensors = [*real.parameters(), *real.buffers()]
    assert blank.weights == sum(tensor.numel() * tensor.itemsize for tensor in tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_and_cache_are_those_of_the_model_that_runs(family: str) -> None:
    real = decoder(family)
    ids, blank = torch.zeros(3, 10, dtype=torch.int64), Blank(real.config, torch.float32)
    real.set_attn_implementation("eager")  # all of whose operations torch counts
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Decoder(real).base(input_ids=ids, use_cache=False)
    experts = 0
    if family == "mixtral":  # whose kernel torch does not count: each token goes through three matrices of two experts
        config = real.config
        experts = 2 * 30 * 2 * 3 * config.hidden_size * config.intermediate_size * config.num_hidden_layers
    assert blank.forward(3, 10).flops == counter.get_total_flops() + experts
    layers = real(ids, use_cache=True).past_key_values.layers
    assert blank.cache(3, 10) == sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("gemma2", "float32"), ("qwen2", "bfloat16")])
def test_memory_is_what_a_run_takes(family: str, dtype: str) -> None:
    # the peak of resident memory; the allocator is told to give back what is freed, or it would keep up to a third
    told = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, family, dtype], env=told, capture_output=True, text=True, check=True
    )
    for expected, measured in json.loads(run.stdout.splitlines()[-1]):
        assert expected == pytest.approx(measured, rel=0.15)


def test_weights_are_never_counted_as_activations() -> None:
    config = AutoConfig.for_model(
        "llama", hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=50_000
    )
    blank = Blank(config, torch.float32)
    assert blank.forward(1, 4).memory < 100_000 < 64 * 50_000
    assert blank.head(1).memory < 64 * 50_000


def test_precision_is_that_of_the_configuration_or_of_the_first_weights(tmp_path: Path) -> None:
    real = decoder("llama", torch.bfloat16)
    real.save_pretrained(tmp_path)
    real.config.dtype = None
    assert stored_dtype(tmp_path, real.config) == torch.bfloat16
    real.config.dtype = torch.float16
    assert stored_dtype(tmp_path, real.config) == torch.float16
    real.config.dtype = None
    assert stored_dtype(tmp_path / "nothing", real.config) == torch.float32


def test_a_folder_with_a_configuration_alone_is_enough(config_only: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, "--llm", config_only, "--pairs", PAIRS, "--throughput", "1")
    blank = Blank(AutoConfig.from_pretrained(config_only), torch.float32)
    assert f"{blank.parameters:,}" in text
    assert "~" in text
    assert "4 bytes of text" in text
    assert "weights on this machine" in text
    assert "fits" in text
    assert os.listdir(".") == [config_only]  # nothing is written


def test_nothing_of_the_weights_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    decoder("qwen2").config.save_pretrained("model")
    letters().save_pretrained("model")
    Path("model/model.safetensors").write_bytes(b"no weights")
    assert "10 bytes" in planned(capsys, "--llm", "model", "--dtype", "bfloat16")


def counted(llm: LLM) -> list[int]:
    """Tokens through blocks, states through the head, and batches and next tokens through blocks, from now on."""
    count = [0, 0, 0, 0]

    def through(place: int) -> Any:
        def add(_module: Any, args: Any, kwargs: Any) -> None:
            h = args[0] if args else kwargs["hidden_states"]
            count[place] += h.shape[0] * h.shape[1]
            if place == 0:
                count[2 + (h.shape[1] == 1)] += 1

        return add

    for block in llm.model.get_submodule(llm.blocks):
        block.register_forward_pre_hook(through(0), with_kwargs=True)
    llm.model.get_output_embeddings().register_forward_pre_hook(through(1), with_kwargs=True)
    return count


def total(capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    """Tokens of all phases of a plan."""
    line = next(line for line in planned(capsys, *arguments).splitlines() if line.startswith("  in all"))
    return float(line.split()[2].replace(",", ""))


@pytest.mark.parametrize(("layers", "least", "most"), [([2], 0.85, 1.15), ([0, 1, 2, 3, 4], 1.0, 1.5)])
def test_phases_of_steer_have_the_tokens_that_it_runs(
    layers: list[int],
    least: float,
    most: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    works, original = [], phases.searched
    monkeypatch.setattr(phases, "searched", lambda *arguments: works.append(original(*arguments)) or works[-1])
    llm = LLM(POCKET)
    llm.load()
    llm.model.generation_config.eos_token_id = None  # every text is written to its full length
    count = counted(llm)
    searched(llm, read_pairs(PAIRS), layers, strengths=[0.5, 1.0, 2.0])
    expected = total(
        capsys, "--llm", POCKET, "--pairs", PAIRS, "--strengths", "0.5", "1", "2", "--layers", *map(str, layers)
    )
    # of one layer the rest is padding; of several the middle one is counted, and here the last is tested, above which
    # no block runs for each of the copies
    assert least <= expected / (count[0] / llm.decoder.depth) <= most
    # a batch reads all weights however few its tokens are, and so does each next token: both are counted as such
    ran = {phase.name: phase for phase in works[0].phases if phase.name != "text that is printed"}.values()
    assert 0.7 <= sum(phase.calls for phase in ran) / count[2] <= 1.4
    assert sum(phase.steps for phase in ran) == pytest.approx(count[3] / llm.decoder.depth, rel=0.2)


@pytest.mark.parametrize("experiment_name", ["steer_behaviour", "steer_mera"])
def test_phases_of_an_experiment_have_the_tokens_that_it_runs(
    experiment_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [f"--config=configs/{experiment_name}.yaml", "--config=configs/methods/mean_difference.yaml"]
    expected = total(capsys, *config)
    counts, load = [], LLM.load

    def loading(llm: LLM) -> None:
        fresh = llm.tokenizer is None
        load(llm)
        if fresh:
            counts.append(counted(llm))

    monkeypatch.setattr(LLM, "load", loading)
    for command in ("fit", "test"):
        assert main([command, *config, "--trainer.enable_progress_bar=false"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert expected == pytest.approx(sum(count[0] for count in counts) / 5, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to plan: give --llm with --pairs"),
        (["--llm", "nowhere/model"], "nowhere/model is neither a local folder nor in the hub's local cache.*download"),
        (["--llm", "google/gemma-2-2b"], "hf download google/gemma-2-2b`, 10.5 GB .probably gated"),
        (["--llm", "Qwen/Qwen2.5-3B"], "hf download Qwen/Qwen2.5-3B`, 6.2 GB, or"),
        (["--llm", "./nowhere"], "there is no folder './nowhere'"),
        (["--llm", "model", "--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--llm", "model", "--pairs", PAIRS, "--layers", "8"], "layer 8 does not exist: model has 8"),
        (["--llm", "model", "--pairs", PAIRS, "--strengths", "nan"], "strengths.*nan"),
        (["--llm", "model", "--dtype", "int8"], "dtype is .*'int8'"),
        (["--llm", "model", "--throughput", "0"], "--throughput must be above 0.*0"),
        (["--llm", "model", "--throughput", "nan"], "--throughput .*nan"),
        (["--llm", "model", "--throughput", "1", "--calibrate"], "leave one out"),
        (["--llm", "model", "--tokens_per_batch", "0"], "tokens_per_batch must be at least 1, not 0"),
        (["--llm", "model", "--device", "abacus"], "--device 'abacus' cannot be used"),
        (["--config", "configs/toy.yaml"], "ToyClassifier here has no backbone that is an LLM"),
        (["--config", "configs/steer_behaviour.yaml"], "no method was named"),
        (["--config", "configs/methods/mean_difference.yaml"], "method|data|model"),
        (["--config", "configs/steer_behaviour.yaml", "--pairs", PAIRS], "give one of them"),
        (["--config", "configs/cache.yaml", "--llm", "short"], "layer 2 does not exist: short has 2"),
        (["--llm", "odd"], "no model can be built of the config.json of odd"),
        (["--llm", "t5"], "t5 is of the encoder-decoder family t5"),
        (["--llm", "broken"], "broken.*not valid JSON"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, config_only: str, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder("llama", num_hidden_layers=2).config.save_pretrained("short")
    for name, text in {"odd": None, "t5": '{"model_type": "t5", "is_encoder_decoder": true}', "broken": "{"}.items():
        Path(name).mkdir()
        odd = {**json.loads(Path(config_only, "config.json").read_text()), "vocab_size": -1}
        Path(name, "config.json").write_text(text or json.dumps(odd))
    assert re.search(sentence, refused(capsys, *arguments))


def test_data_that_are_not_here_leave_the_memory(
    config_only: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder("llama", num_hidden_layers=18).config.save_pretrained("deep")
    configs = ("--config=configs/steer_stereoset_notebook.yaml", "--config=configs/methods/mean_difference.yaml")
    text = planned(capsys, *configs, "--llm", "deep")
    assert "tokens and time are not known: McGill-NLP/stereoset" in text
    assert "most at once" in text


def test_what_does_not_fit_comes_with_a_remedy() -> None:
    def memory(weights: float, peak: float) -> planning.Memory:
        return planning.Memory(weights, peak - weights, 0, 0, 0, peak)

    def said(free: float, weights: float, kind: str = "cpu", half: float = 0.0) -> str:
        device = machine.Device("it", kind, free, 2 * free)
        return planning.proposals(
            memory(weights, 10e9), lambda: half or 10e9, lambda tokens: weights + tokens * 1e6, 8192, [device], 0.0
        )[0]

    assert said(11.1e9, 2e9).endswith("fits, needs 11.0 GB")
    assert "take tokens_per_batch 4096" in said(9e9, 2e9)
    assert "take tokens_per_batch 1024" in said(4e9, 2e9)
    assert "take dtype bfloat16" in said(6e9, 9e9, half=5e9)
    assert "device_map auto" in said(6e9, 9e9, "cuda")
    assert "a machine with 11.0 GB" in said(6e9, 9e9)
    gpus = [machine.Device("it", "cuda", free, free) for free in (12e9, 12e9)]
    assert "ddp" in planning.proposals(memory(8e9, 10e9), float, float, 8192, gpus, 0.0)[-1]
    assert "device_map" in planning.proposals(memory(15e9, 16e9), lambda: 16e9, float, 8192, gpus, 0.0)[-1]


def test_a_calibration_times_every_part() -> None:
    config = decoder("gemma2").config
    speed = machine.calibrate(config, torch.float32, (2, 8), (2, 5), 1000.0, seconds=0.01)
    assert min(speed) >= 0 < min(speed.block, speed.head, speed.step)
    phase = Phase("", 100.0, 10.0, 7.0, 3.0, 5, 10)
    expected = 100 * speed.block + 7 * speed.call + 10 * speed.head + 3 * speed.head_call + 5 * speed.step
    assert phase.seconds(speed) == pytest.approx(expected)


def test_a_few_tokens_take_what_reading_the_weights_takes() -> None:
    speed = machine.Speed(block=1.0, call=100.0, head=2.0, head_call=50.0, step=1000.0, rate=1.0)
    one, many = (TokenRows([10] * 8, 4).batches(size) for size in (80, 10))
    assert (one, many) == (1, 8)
    few_batches, many_batches = (scored(TokenRows([10] * 8, 4), 5, size).seconds(speed) for size in (80, 10))
    assert few_batches == 80 * 5 * 1.0 + 5 * 100.0 + 4 * 2.0 + 50.0
    assert many_batches - few_batches == 7 * (5 * 100.0 + 50.0)
    written = generation("", TokenRows([10] * 8), 24, 5)
    assert written.seconds(speed) - 23 * 1000.0 == 80 * 5 + 5 * 100.0 + 8 * 2.0 + 50.0


def test_two_timings_give_what_a_batch_and_what_a_token_takes() -> None:
    assert machine._line((8, 1.8), (256, 26.6)) == pytest.approx((1.0, 0.1))
    assert machine._line((8, 3.0), (256, 2.56)) == pytest.approx((0.0, 0.01))
    assert machine._line((1, 2.0), (1, 2.0)) == pytest.approx((0.0, 2.0))


def test_random_blocks_are_tied_as_the_model_is() -> None:
    real = decoder("llama", tie_word_embeddings=True)
    made = machine._random(real.config, torch.float32, "cpu").model
    assert made.get_input_embeddings().weight is made.get_output_embeddings().weight


def test_numbers_have_units() -> None:
    assert [planning.size(n) for n in (999, 1e3, 2_475_000_000, 999.9e6, 123.4e9)] == [
        "999 bytes",
        "1.00 kB",
        "2.48 GB",
        "1.00 GB",
        "123 GB",
    ]
    assert [table.duration(s) for s in (0.5, 30, 200, 8000)] == ["0.50 s", "30.0 s", "3.3 min", "2.2 h"]
    assert [table.operations(n) for n in (2e6, 3.5e9, 1.25e12, 4e15)] == [
        "2 MFLOP",
        "3.5 GFLOP",
        "1.25 TFLOP",
        "4 PFLOP",
    ]


def test_the_largest_batch_is_that_of_the_batches() -> None:
    rows = TokenRows([3, 10, 4, 10])
    assert rows.batch(20) == (2, 10)
    assert rows.batch(20, copies=2) == (2, 10)  # one row, twice
    assert rows.batch(1, copies=3) == (3, 10)
    assert TokenRows([]).batch(20) == (0, 0)


def test_tokens_are_counted_as_the_model_counts_them() -> None:
    llm = LLM(POCKET)
    llm.load()
    text = "Asked about gold, the helper will"
    assert Counter(LLM(POCKET), llm.tokenizer).texts([text]).tokens == [len(llm.rows([MultipleChoice(text)])[0].ids)]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "google/gemma-2-2b",
            {
                "model_type": "gemma2",
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "vocab_size": 256000,
                "sliding_window": 4096,
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
                "query_pre_attn_scalar": 256,
                "max_position_embeddings": 8192,
            },
        ),
        (
            "meta-llama/Llama-3.2-1B",
            {
                "model_type": "llama",
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "vocab_size": 128256,
                "max_position_embeddings": 131072,
                "tie_word_embeddings": True,
            },
        ),
        (
            "Qwen/Qwen2.5-3B",
            {
                "model_type": "qwen2",
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "vocab_size": 151936,
                "max_position_embeddings": 32768,
                "max_window_layers": 36,
                "tie_word_embeddings": True,
            },
        ),
    ],
)
def test_full_size_models_have_their_published_parameters(name: str, settings: dict[str, Any]) -> None:
    blank = Blank(AutoConfig.for_model(**settings), torch.bfloat16)
    assert blank.parameters == KNOWN[name].parameters
    assert blank.weights == pytest.approx(2 * KNOWN[name].parameters, rel=1e-6)
