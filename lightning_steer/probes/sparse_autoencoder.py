"""Sparse autoencoders: activations as sparse sums of many directions, ``h ~ z W_dec + b_dec``.

``z = relu((h - b_dec) W_enc + b_enc)``, or 0 where that is below a feature's threshold (JumpReLU; Rajamanoharan et al.
2024, arXiv 2407.14435). Trained on ``|h - h'|^2 + sparsity * sum_j z_j |W_dec,j|``, rows scaled to unit root mean
square, as in Bricken et al. 2023 ("Towards monosemanticity"). Files are those of SAELens, or any safetensors with the
same names.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_steer.errors import UserError
from lightning_steer.files import write

LEAST = 10
"""A feature that is active in fewer training rows is switched off, as it describes those rows only. A regression on
standardised features would give a feature that once was 1e-4 a weight of thousands, and fail where it is larger.
"""


class SparseAutoencoder(NamedTuple):
    """Weights of an autoencoder for every leading problem ``*``."""

    W_enc: Tensor
    """``[*, d, m]``."""
    b_enc: Tensor
    """``[*, m]``."""
    W_dec: Tensor
    """``[*, m, d]``; a feature's row is its direction in the stream."""
    b_dec: Tensor
    """``[*, d]``."""
    threshold: Tensor
    """``[*, m]`` below which a feature is 0; all 0 for a plain ReLU."""

    def encode(self, h: Tensor) -> Tensor:
        """Encode ``[*, n, d]`` as ``[*, n, m]``, in the precision of the weights."""
        return encode(self, h)

    def decode(self, z: Tensor) -> Tensor:
        """Decode ``[*, n, m]`` to ``[*, n, d]``."""
        return z @ self.W_dec + self.b_dec.unsqueeze(-2)

    def loss(self, h: Tensor, sparsity: float) -> Tensor:
        """Return ``[*]`` the training loss of scaled rows."""
        z = self.encode(h)
        error = (h - self.decode(z)).square().sum(-1)
        return (error + sparsity * (z * self.W_dec.norm(dim=-1).unsqueeze(-2)).sum(-1)).mean(-1)


def encode(sae: Any, h: Tensor) -> Tensor:
    """Encode ``[*, n, d]`` as ``[*, n, m]`` in the weights' precision; ``sae`` may be a module with them as buffers."""
    before = (h.to(sae.W_enc) - sae.b_dec.unsqueeze(-2)) @ sae.W_enc + sae.b_enc.unsqueeze(-2)
    return torch.where(before > sae.threshold.unsqueeze(-2), before.relu(), 0.0)


def no_features(width: int, features: int) -> SparseAutoencoder:
    """Return an autoencoder with all weights zero, as a placeholder."""
    shapes = ((width, features), (features,), (features, width), (width,), (features,))
    return SparseAutoencoder(*(torch.zeros(shape) for shape in shapes))


def begin(h: Tensor, features: int, seed: int) -> SparseAutoencoder:
    """Initialise random directions, the encoder as the decoder's transpose, centred on the mean of ``h [*, n, d]``."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(features, h.shape[-1], generator=generator).to(h)
    w = (w / w.norm(dim=-1, keepdim=True)).expand(*h.shape[:-2], -1, -1)
    zero = h.new_zeros(*h.shape[:-2], features)
    return SparseAutoencoder(w.mT.clone(), zero, w.clone(), h.mean(-2), zero.clone())


@torch.inference_mode(False)  # a test also fits methods, and Lightning's test has no gradients
def train_sparse_autoencoder(
    h: Tensor, features: int, sparsity: float = 0.3, steps: int = 400, seed: int = 0
) -> SparseAutoencoder:
    """Fit to rows ``h [*, n, d]`` in memory, by Adam on 512 rows a step; leading problems are independent."""
    h = h.float().clone()
    centre, scale = scaling(h)
    x = (h - centre) / scale
    start, generator = begin(x, features, seed), torch.Generator().manual_seed(seed)
    parameters = [p.detach().clone().requires_grad_() for p in start[:4]]
    optimiser = torch.optim.Adam(parameters, lr=3e-3)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(x.shape[-2], (min(512, x.shape[-2]),), generator=generator).to(x.device)
            optimiser.zero_grad()
            SparseAutoencoder._make([*parameters, start.threshold]).loss(x[..., rows, :], sparsity).sum().backward()
            optimiser.step()
    sae = unscaled(SparseAutoencoder._make([*(p.detach() for p in parameters), start.threshold]), centre, scale)
    return without(sae, (sae.encode(h) > 0).sum(-2) < LEAST)


def scaling(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``[*, 1, d]`` and root mean square distance from it ``[*, 1, 1]`` of rows ``h [*, n, d]``."""
    centre = h.mean(-2, keepdim=True)
    return centre, (h - centre).square().sum(-1, keepdim=True).mean(-2, keepdim=True).sqrt().clamp_min(1e-12)


def unscaled(sae: SparseAutoencoder, centre: Tensor, scale: Tensor) -> SparseAutoencoder:
    """Convert an autoencoder of ``(h - centre) / scale``, ``centre [*, 1, d]`` and ``scale [*, 1, 1]``, to one of h.

    Its directions get unit length.
    """
    size, factor = sae.W_dec.norm(dim=-1).clamp_min(1e-12), scale.squeeze(-1)
    return SparseAutoencoder(
        sae.W_enc * size.unsqueeze(-2),
        sae.b_enc * size * factor,
        sae.W_dec / size.unsqueeze(-1),
        sae.b_dec * factor + centre.squeeze(-2),
        sae.threshold * size * factor,
    )


def without(sae: SparseAutoencoder, features: Tensor) -> SparseAutoencoder:
    """Switch off ``features [*, m]`` (bool): they are 0 for every row."""
    return sae._replace(W_enc=sae.W_enc * ~features.unsqueeze(-2), b_enc=sae.b_enc * ~features)


def read_metadata(folder: str | Path) -> dict[str, str]:
    """Read the metadata of an autoencoder's file; empty if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_file(folder), "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _file(folder: str | Path) -> Path:
    path = Path(folder)
    return next(iter(sorted(path.glob("*.safetensors"))), path / "sae_weights.safetensors") if path.is_dir() else path


def read_sparse_autoencoder(folder: str | Path, width: int) -> SparseAutoencoder:
    """Read a SAELens folder (``sae_weights.safetensors`` with ``cfg.json``) or a safetensors file with its names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a weight is missing, shapes do not fit, or it is not for activations ``width`` wide.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _file(folder)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no sparse autoencoder in {folder}: give a folder with sae_weights.safetensors; one that SAELens "
            "knows by name is saved there with SAE.from_pretrained(...).save_model(folder), after pip install sae-lens"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): download or save it again") from error
    missing = {"W_enc", "b_enc", "W_dec", "b_dec"} - tensors.keys()
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(tensors))}")
    tensors.setdefault("threshold", torch.zeros_like(tensors["b_enc"]))
    sae = SparseAutoencoder._make(tensors[name].float() for name in SparseAutoencoder._fields)
    d, m = sae.W_enc.shape
    shapes = ((sae.b_enc, (m,)), (sae.W_dec, (m, d)), (sae.b_dec, (d,)), (sae.threshold, (m,)))
    if any(x.shape != shape for x, shape in shapes):
        found_shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in tensors.items())
        raise UserError(f"the shapes in {path} do not fit: {found_shapes}")
    if d != width:
        raise UserError(f"the autoencoder in {folder} is for activations {d} wide, not {width}")
    config = path.with_name("cfg.json")
    centred = json.loads(config.read_text()).get("apply_b_dec_to_input", True) if config.is_file() else True
    return sae if centred else sae._replace(b_enc=sae.b_enc + sae.b_dec @ sae.W_enc)  # cancels encode's b_dec


def save_sparse_autoencoder(sae: SparseAutoencoder, folder: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Save in SAELens' format, with ``metadata`` that SAELens ignores."""
    from safetensors.torch import save

    jump = bool((sae.threshold > 0).any())
    tensors = {name: x.contiguous() for name, x in sae._asdict().items() if name != "threshold" or jump}
    write(Path(folder) / "sae_weights.safetensors", save(tensors, metadata))
    kind = {"architecture": "jumprelu" if jump else "standard", "apply_b_dec_to_input": True, "dtype": "float32"}
    sizes = {"d_in": sae.W_enc.shape[0], "d_sae": sae.W_enc.shape[1]}
    write(Path(folder) / "cfg.json", json.dumps({**kind, **sizes}).encode())
