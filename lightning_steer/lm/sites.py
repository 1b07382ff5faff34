"""The places in a decoder block that can be read and steered: their names, widths and heads."""

from torch import nn

from lightning_steer.errors import UserError
from lightning_steer.hooks import INPUT, submodule
from lightning_steer.lm.decoder import blocks

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
PARTS = {
    "block": (),
    "attention": ATTENTION,
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "fc2"),
    "heads": ATTENTION,
}
"""Families' names of the parts that can be steered inside a block; OPT's last linear layer is its MLP's output.

``heads`` are the outputs of the attention's heads, side by side: the input of its last linear layer.
"""
PROJECTIONS = ("o_proj", "out_proj", "dense", "c_proj")
"""Families' names of the linear layer that turns the heads' outputs into the attention's output."""


def site_of(model: nn.Module, layer: int, part: str) -> str:
    """Return the name of a block, or of a part of it; raise ValueError if it has no such part."""
    block = f"{blocks(model)}.{layer}"
    if part == "block":
        return block
    children = dict(model.get_submodule(block).named_children())
    names = [f"{block}.{name}" for name in PARTS[part] if name in children]
    if not names:
        raise UserError(f"{type(model).__name__} blocks have no {part} of their own; they hold {list(children)}")
    return _heads(model, names[0]) if part == "heads" else names[0]


def _heads(model: nn.Module, attention: str) -> str:
    inside = dict(model.get_submodule(attention).named_modules())
    names = [name for name in inside if name.rpartition(".")[2] in PROJECTIONS]
    if len(names) != 1:
        raise UserError(
            f"{type(model).__name__}: {attention} has {len(names)} layers called {', '.join(PROJECTIONS)}, not one, so "
            "the outputs of its heads cannot be told: steer its attention instead"
        )
    site = f"{attention}.{names[0]}{INPUT}"
    count, width = heads(model, site), site_width(model, site)
    if width % count:
        raise UserError(f"{site} is {width} wide, which {count} heads do not divide: steer the attention instead")
    return site


def site_width(model: nn.Module, site: str) -> int:
    """Return the number of features at a site."""
    if not site.endswith(INPUT):
        return int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr,operator]
    layer = submodule(model, site)
    return int(getattr(layer, "in_features", None) or layer.nx)  # type: ignore[arg-type]  # GPT-2's own has nx


def heads(model: nn.Module, site: str) -> int:
    """Return the number of equal parts of a row at a site: the heads by the model's configuration, elsewhere 1."""
    if not site.endswith(INPUT):
        return 1
    return int(model.config.get_text_config().num_attention_heads)  # type: ignore[union-attr,operator]
