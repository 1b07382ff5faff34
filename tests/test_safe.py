"""Nothing in the package unpickles, evaluates or trusts code that comes with data; and CI runs what there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

SOURCES = sorted((ROOT / "lightning_steer").rglob("*.py"))
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
NETWORK = {"requests", "urllib", "urllib3", "http", "socket", "ssl", "ftplib", "httpx", "aiohttp", "huggingface_hub"}
NETWORK |= {"sae_lens", "smtplib", "xmlrpc", "fsspec"}
LISTENS = Path("chat/web.py")
"""Opens a socket to be spoken to, on this machine alone; tests/test_chat_web.py says so."""
READ_BY_CLASS = ("AutoConfig.from_pretrained", "AutoTokenizer.from_pretrained")
"""Whatever else is read by ``from_pretrained`` has weights."""


def unsafe(text: str) -> Iterator[str]:
    """What in a source text would run what a file holds."""
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        yield from (f"import {name}" for name in names if name.split(".")[0] in PICKLES | NETWORK)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in ("eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load", "os.system"):
            yield called
        if called == "torch.load" and keywords != {"map_location": "'cpu'", "weights_only": "True", "mmap": "True"}:
            yield "torch.load that is not checkpoint.load"
        if keywords.get("trust_remote_code", "False") != "False":
            yield "trust_remote_code"
        if keywords.get("allow_pickle", "False") != "False" or keywords.get("shell", "False") != "False":
            yield f"{called} with allow_pickle or shell"
        if called.startswith("torch.hub") or called.endswith(("hf_hub_download", "snapshot_download")):
            yield "a download"
        weights = called.endswith(".from_pretrained") and not called.endswith(READ_BY_CLASS)
        if weights and keywords.get("use_safetensors") != "True":
            yield "weights that need not be safetensors"


@pytest.mark.parametrize(
    "path",
    SOURCES,
    ids=[str(path.relative_to(ROOT)) for path in SOURCES],
)
def test_no_unsafe_load(path: Path) -> None:
    listens = ["import socket"] if path.relative_to(ROOT / "lightning_steer") == LISTENS else []
    assert list(unsafe(path.read_text())) == listens
    assert ("torch.load(" in path.read_text()) == (path.name == "checkpoint.py")


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from dill import loads",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=asked)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "AutoModelForCausalLM.from_pretrained(name)",
        "auto_class(config).from_pretrained(name)",
        "import requests",
        "from urllib.request import urlopen",
        "from huggingface_hub import hf_hub_download",
        "torch.hub.load_state_dict_from_url(name)",
    ],
)
def test_an_unsafe_load_is_found(text: str) -> None:
    assert list(unsafe(text))


def test_ci_runs_targets_that_there_are() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert {"check", "test", "slow", "docs", "wheel", "audit"} <= jobs.keys()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"- run: make ([a-z-]+)", text))
    assert named == {"check", "test", "test-all", "docs"}
    assert named <= targets


def test_hooks_are_those_of_make_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    recipe = (ROOT / "Makefile").read_text()
    for hook in hooks:
        tool = Path(hook["entry"].split()[0]).name
        assert f"$(VENV)/bin/{tool}" in recipe, f"{tool} is not what make check runs"


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'^version = "([\d.]+?)(?:\.dev\d+)?"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert citation["version"] == version[1]
    assert citation["license"] == "MIT"
    assert citation["cff-version"] == "1.2.0"


def test_releases_that_are_not_to_be_had_are_excluded() -> None:
    """Of lightning two were malicious; before datasets 4 a data set could bring a script."""
    bounds = dict(re.findall(r'^    "([a-z]+)>=([0-9.]+)', (ROOT / "pyproject.toml").read_text(), re.M))
    assert tuple(map(int, bounds["lightning"].split("."))) >= (2, 6, 4)
    assert tuple(map(int, bounds["datasets"].split("."))) >= (4, 0)
    assert (
        "pip-audit --no-deps --disable-pip --requirement requirements.lock"
        in (ROOT / ".github/workflows/ci.yml").read_text()
    )
