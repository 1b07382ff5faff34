"""Write an edit into weights where that is exact: a model folder, or a LoRA adapter; refuse it elsewhere.

Exact are edits of all tokens at a fixed strength: vectors where a last linear layer has a bias, affine maps at a last
linear layer, and a direction removed from everything that writes to the stream.
"""

from lightning_steer.vectors.bake.folder import Baked, adapter, bake

__all__ = ["Baked", "adapter", "bake"]
