"""Sparse autoencoders: trained ones find planted directions, files are SAELens's, and MERA steers along them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_steer.methods import SAEMERA
from lightning_steer.probes.error_probe import fit_error_probe
from lightning_steer.probes.sparse_autoencoder import (
    no_features,
    read_sparse_autoencoder,
    save_sparse_autoencoder,
    train_sparse_autoencoder,
)
from lightning_steer.records import Activations

D, M, N = 12, 16, 1500


def planted(seed=0):
    """Rows that are sums of few of 16 directions in 12 dimensions."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(M, D, generator=g)
    directions /= directions.norm(dim=-1, keepdim=True)
    z = (torch.rand(N, M, generator=g) < 0.1) * (1 + torch.rand(N, M, generator=g))
    return z @ directions + 3, z, directions


def test_planted_directions_are_found_and_little_is_lost():
    h, _, directions = planted()
    sae = train_sparse_autoencoder(h, 2 * M, sparsity=0.05, steps=1500)
    lost = (h - sae.decode(sae.encode(h))).square().sum() / (h - h.mean(0)).square().sum()
    assert lost < 0.1
    cosines = (directions @ sae.W_dec.T).abs().amax(1)  # cosines, as both have unit length
    assert (cosines > 0.9).sum() >= 12
    random = torch.nn.functional.normalize(torch.randn(2 * M, D, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert ((directions @ random.T).abs().amax(1) > 0.9).sum() < 4


@pytest.mark.parametrize("jump", [False, True])
def test_files_come_back(tmp_path, jump):
    h, _, _ = planted()
    sae = train_sparse_autoencoder(h, M, steps=20)
    if jump:
        sae = sae._replace(threshold=torch.full((M,), 0.4))
    save_sparse_autoencoder(sae, tmp_path)
    again = read_sparse_autoencoder(tmp_path, D)
    assert torch.equal(sae.encode(h), again.encode(h))
    assert json.loads((tmp_path / "cfg.json").read_text())["d_sae"] == M
    if jump:
        assert ((again.encode(h) == 0) | (again.encode(h) > 0.4)).all()
    assert torch.equal(read_sparse_autoencoder(tmp_path / "sae_weights.safetensors", D).W_dec, sae.W_dec)


def test_saelens_files_that_do_not_centre_the_input_are_read_right(tmp_path):
    h, _, _ = planted()
    sae = train_sparse_autoencoder(h, M, steps=20)
    save_sparse_autoencoder(sae, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "apply_b_dec_to_input": False}))
    expected = (h @ sae.W_enc + sae.b_enc).relu()
    torch.testing.assert_close(read_sparse_autoencoder(tmp_path, D).encode(h), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "sae_weights.safetensors").unlink(), "no sparse autoencoder in .* after pip install sae-lens"),
        (lambda f: (f / "sae_weights.safetensors").write_bytes(b"x"), "is damaged"),
        (lambda f: _without(f, "b_dec"), "lacks b_dec; it holds W_dec, W_enc, b_enc"),
        (lambda f: _with(f, "b_enc", torch.zeros(3)), "shapes in .* do not fit"),
    ],
)
def test_bad_files_are_refused(tmp_path, change, message):
    save_sparse_autoencoder(no_features(D, M), tmp_path)
    change(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_sparse_autoencoder(tmp_path, D)


def _without(folder, name):
    path = folder / "sae_weights.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != name}, path)


def _with(folder, name, value):
    path = folder / "sae_weights.safetensors"
    save_file({**load_file(path), name: value}, path)


def test_another_width_is_refused(tmp_path):
    save_sparse_autoencoder(no_features(D, M), tmp_path)
    with pytest.raises(ValueError, match=f"is for activations {D} wide, not 5"):
        SAEMERA(5, str(tmp_path))


def test_the_method_lowers_the_predicted_error_with_its_own_and_a_given_autoencoder(tmp_path):
    h, z, _ = planted()
    error = (3 * z[:, 0] + 2 * z[:, 1] - 2).sigmoid()
    seen = Activations(h, error, torch.zeros(N, 1, dtype=torch.int64), False)
    save_sparse_autoencoder(train_sparse_autoencoder(h, M), tmp_path)
    probe = fit_error_probe(h, error, 0.0, False)
    for method in (SAEMERA(D).fit(seen), SAEMERA(D, str(tmp_path)).fit(seen)):
        before, after = (x.double() @ probe.weight + probe.intercept for x in (h, method(h, 0.1)))
        high = before > 0
        assert after[high].mean() < before[high].mean() - 1
        assert torch.equal(method(h, 1.0), h)
        edited = (method(h, 0.5) != h).any(-1)
        assert 0 < edited.double().mean() < 0.6
