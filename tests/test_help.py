"""Help and misspelt options: answered from a file that equals the parsers, without importing torch or Lightning."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from lightning_steer import cli
from lightning_steer.__main__ import main
from lightning_steer.experiment_help import PAGES
from lightning_steer.help import __main__ as generator
from lightning_steer.help import commands, early

TEXTS = early.read()
OPTIONS = [(name, option) for name, text in TEXTS.items() for option in text.options]
HEAVY = ("torch", "lightning", "transformers", "numpy", "scipy", "jsonargparse", "matplotlib")
LIGHT = [
    [],
    ["--help"],
    ["fti"],
    ["--confg", "all.yaml", "fit"],
    *([command, "--help"] for command in commands.NAMES),
    *([command, "--help", "--unknown"] for command in commands.NAMES),
    *([command, "--unknown", "1"] for command in commands.NAMES),
]
VALUES = {
    "--experiment": "mine",
    "--run": "mine",
    "--overwrite": True,
    "--accept_mismatch": True,
    "--seed_everything": 7,
    "--ckpt_path": "mine.ckpt",
    "--model.backbone.llm": "mine",
    "--model.backbone.layers": [0, 3],
    "--model.method": "LEACE",
    "--model.strengths": [0.5, 5.0],
    "--model.steering": "mine.safetensors",
    "--model.max_new_tokens": 7,
    "--model.temperature": 0.5,
    "--data.source": "ChoicesFile",
    "--data.reference_texts": "mine.txt",
    "--data.file": "mine.txt",
}


def shown(command: str) -> list[str]:
    """The options of a command's page, in its order."""
    page = TEXTS[command].help.partition("more help:")[0]
    return [line.split()[0] for line in page.splitlines() if line.startswith("  --")]


def example(command: str) -> list[str]:
    """The arguments of the example at the end of a command's page."""
    words = shlex.split(TEXTS[command].help.partition("For example:")[2].replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "lightning_steer"]
    return words[3:]


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends by itself."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_file_is_what_the_parsers_say() -> None:
    assert json.loads(early.PATH.read_text()) == generator.texts(), "run python -m lightning_steer.help"


def test_neither_help_nor_a_misspelt_option_imports_anything_heavy() -> None:
    code = (
        "import json, sys, lightning_steer\n"
        "from lightning_steer.__main__ import main\n"
        "codes = [main(words) for words in json.loads(sys.argv[1])]\n"
        f"print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(LIGHT)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    codes, imported = json.loads(run.stdout.splitlines()[-1])
    assert imported == []
    assert codes == [0 if not words or "--help" in words else 2 for words in LIGHT]
    assert len(run.stderr.splitlines()) == codes.count(2)


def test_the_overview_lists_every_command_and_its_example_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    overview = capsys.readouterr().out
    for command in (*commands.COMMANDS, *commands.EXPERIMENTS):
        assert f"  {command.name:<10}{command.summary}\n" in overview
        assert early.answer([command.name, *shlex.split(command.example)]) is None
    assert {command.name for command in commands.EXPERIMENTS} == cli.STEPS.keys() == PAGES.keys()
    assert TEXTS.keys() == {"", *commands.NAMES}


@pytest.mark.parametrize("name", ["", *commands.NAMES])
def test_lines_fit_into_a_terminal(name: str) -> None:
    text = TEXTS[name].help if name else commands.overview()
    described = text.partition("\n\n")[2]  # the usage is one line that can be copied
    assert max(map(len, described.splitlines())) <= 100


@pytest.mark.parametrize("command", PAGES)
def test_the_ten_options_of_a_page_do_what_it_says(
    command: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(shown(command)) == 10
    words = example(command)
    assert words[0] == command
    settings = {option: VALUES[option] for option in shown(command) if option != "--config"}
    path = {"ChoicesFile": ["--data.source.path", "mine.jsonl"]}.get(str(settings.get("--data.source")), [])
    options = [f"{option}={json.dumps(value) if value is True else value}" for option, value in settings.items()]
    config = yaml.safe_load(printed([*words, *options, *path, "--print_config"], capsys))
    for option, value in settings.items():
        entry = config
        for key in option.strip("-").split("."):
            entry = entry.get("init_args", entry)[key]
        assert entry == value or entry["class_path"].endswith(f".{value}"), option


def test_the_examples_of_the_pages_run_wherever_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # no configs/ here: those of the package are read
    Path("prompts.txt").write_text("Asked about gold, the helper will\n")
    for command in PAGES:  # fit comes first
        assert main([*example(command), "--trainer.enable_progress_bar=false"]) == 0, capsys.readouterr().err
    assert Path("logs/mine/mean_difference/report.json").is_file()
    assert Path("logs/responses/base/responses.md").is_file()


@pytest.mark.parametrize("command", PAGES)
def test_the_help_of_all_options_has_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed([command, "--help-all"], capsys)
    missing = [option for option in TEXTS[command].options if option not in text and not option.endswith("+")]
    assert missing == []


@pytest.mark.parametrize("command", [command.name for command in commands.COMMANDS])
def test_other_commands_hide_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, early.ALL]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in TEXTS[command].options)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_that_exists_is_never_refused(name: str, option: str) -> None:
    early.check_options(name, [option, "value"])
    early.check_options(name, [f"{option}=value"])


@pytest.mark.parametrize(("name", "option"), [pair for pair in OPTIONS if len(pair[1].strip("-+")) > 2])
def test_a_letter_too_few_is_refused_with_the_option_that_was_meant(name: str, option: str) -> None:
    misspelt = option.rstrip("+")[:-2] + option.rstrip("+")[-1]
    if misspelt not in TEXTS[name].options and not option.endswith(("+", ".help")):
        with pytest.raises(early.UnknownArgumentError) as refused:
            early.check_options(name, [misspelt])
        sentence = str(refused.value)
        assert repr(misspelt) in sentence
        assert option in sentence.partition("did you mean ")[2].rstrip("?").split(" or ")


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--model.init_args.strenghts", "[1]"],  # below a class: the parser knows more
        ["fit", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x"],
        ["fit", "--trainer.logger.init_args.name", "x", "--model=SteeringAdaptor", "--data.source.path=x"],
        ["fit", "-c", "all.yaml", "-call.yaml", "--print_config=skip_null"],
        ["fit", "--model.strengths", "-1", "--seed_everything=-2"],
        ["--config", "all.yaml", "fit"],
        ["steer", "--prompt", "--no option, a text", "--strengths", "-.5", "-1"],
        ["judge", "--", "--table.csv"],
    ],
)
def test_what_the_parser_may_know_is_left_to_it(words: list[str]) -> None:
    assert early.answer(words) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["steeer"], r"no command 'steeer'; did you mean steer\?"),
        (["xyz"], "no command 'xyz'; commands are steer, .*predict"),
        (["fit", "configs/toy.yaml"], "fit takes options only, not 'configs/toy.yaml': .*--config FILE"),
        (["fit", "--llm", "gpt2"], r"no option '--llm' of fit; did you mean --model\.backbone\.llm\?"),
        (["fit", "--seed=1"], r"no option '--seed' of fit; did you mean --seed_everything\?"),
        (["test", "--max_epochs", "1"], r"no option '--max_epochs' of test; did you mean --trainer\.max_epochs\?"),
        (["steer", "--max-new-tokens", "9"], r"did you mean --max_new_tokens\?"),
        (["fit", "--trainer.xyzzy", "1"], "no option '--trainer.xyzzy' of fit; see fit --help-all"),
        (["check", "-q"], "no option '-q' of check; see check --help-all"),
        (["--confg", "all.yaml", "fit"], r"no option '--confg' before a command; did you mean --config\?"),
    ],
)
def test_a_refusal_names_the_value_and_what_to_do(words: list[str], sentence: str) -> None:
    with pytest.raises(early.UnknownArgumentError, match=sentence):
        early.answer(words)


@given(st.text(min_size=1))
def test_a_value_of_an_option_is_never_refused(value: str) -> None:
    assert early.answer(["fit", f"--run={value}"]) is None
    assert early.answer(["steer", f"--prompt={value}"]) is None
