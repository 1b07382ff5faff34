"""What the pages on adding a method and a metric show is executed as it stands there."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import laws
import pytest
import torch
import yaml
from conftest import ROOT, rows


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page} shows no {language}"
    return found


def module(text: str, name: str, folder: Path) -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Any:
    (text,) = blocks("adding-a-method.md", "python")
    return module(text, "mean_projection", tmp_path_factory.mktemp("method")).MeanProjection


@pytest.mark.parametrize("law", laws.LAWS, ids=[law.__name__ for law in laws.LAWS])
def test_the_method_obeys_the_laws(law: Any, method: Any) -> None:
    torch.manual_seed(0)
    law(method, rows())


def test_the_method_does_what_the_page_says(method: Any) -> None:
    map_ = method(8).fit(rows())
    steered = map_(torch.randn(20, 8), 1.0) @ map_.direction
    torch.testing.assert_close(steered, steered.mean().expand(20))
    body = re.search(r"class MeanProjection.*", blocks("adding-a-method.md", "python")[0], re.DOTALL)
    assert body
    assert len([line for line in body[0].splitlines() if line.strip()]) <= 20


def test_the_configuration_is_whole() -> None:
    (text,) = blocks("adding-a-method.md", "yaml")
    assert yaml.safe_load(text)["model"]["init_args"]["method"] == "MeanProjection"
    for word in ("# What: ", "# Cost: ", "# Command: ", "# Expected: "):
        assert word in text


def test_the_metric_passes_its_own_tests(tmp_path: Path) -> None:
    made = module("\n".join(blocks("adding-a-metric.md", "python")), "answer_entropy", tmp_path)
    tests = [name for name in vars(made) if name.startswith("test_")]
    assert len(tests) == 3
    for name in tests:
        getattr(made, name)()
    with pytest.raises(ValueError, match="no row was added"):
        made.AnswerEntropy().compute()
