"""Weights that were changed are seen in another precision too: they are compared as they lie in their files."""

import json
from pathlib import Path

import pytest
import torch
from decoders import FAMILIES, decoder
from runs import folder_with_models, given, other_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_steer import vectors
from lightning_steer.__main__ import main
from lightning_steer.cache import fingerprints
from lightning_steer.lm.language_model import LLM
from lightning_steer.methods import MeanDifference

here = pytest.fixture(scope="module", name="here")(folder_with_models)
HALF = ["--model.init_args.backbone.init_args.dtype=bfloat16", "--accept_mismatch=true"]


def test_an_accepted_precision_does_not_hide_other_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    path = Path("logs/steer_stereoset/mean_difference/report.json")
    assert main(given("fit", "steer_stereoset", "mean_difference")) == 0
    assert main(given("test", "steer_stereoset", "mean_difference", *HALF)) == 0
    (sentence,) = json.loads(path.read_text())["mismatches"]
    assert "precision float32, not bfloat16" in sentence
    other_model()
    assert main(given("test", "steer_stereoset", "mean_difference", *HALF)) == 0
    weights, precision = json.loads(path.read_text())["mismatches"]
    assert ": weights " in weights
    assert "precision float32, not bfloat16" in precision


def test_a_vector_is_refused_by_a_model_that_was_edited_in_another_precision(
    pocket_decoder: Path, tmp_path: Path
) -> None:
    llm = LLM(str(pocket_decoder), 1)
    llm.load()
    (site,) = llm.sites
    method = MeanDifference(llm.width(site))
    method.vector, method.fitted = torch.ones(llm.width(site)), True
    vectors.save(tmp_path / "v.safetensors", vectors.of(llm, {site: method}, 1.0))
    tokenizer = AutoTokenizer.from_pretrained(pocket_decoder)
    half = AutoModelForCausalLM.from_pretrained(pocket_decoder, dtype=torch.bfloat16)
    vector = vectors.load(tmp_path / "v.safetensors")
    with vectors.edit(half, vector, tokenizer=tokenizer):
        pass
    with torch.no_grad():
        half.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(ValueError, match="weights are others"), vectors.edit(half, vector, tokenizer=tokenizer):
        pass


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_weights_are_found_in_their_files(family: str, tmp_path: Path) -> None:
    decoder(family).save_pretrained(tmp_path)
    whole = fingerprints.of_files(str(tmp_path), None)
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert fingerprints.of_files(str(tmp_path), None, model) == whole
        parameter = max(model.parameters(), key=torch.numel)
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        assert fingerprints.of_files(str(tmp_path), None, model) is None
