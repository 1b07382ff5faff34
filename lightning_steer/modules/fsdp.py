"""Weights that are spread over processes: each keeps its share, and is sent a block's when it is its turn (FSDP2)."""

from typing import cast

from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from lightning_steer.lm import decoder


def spread(network: nn.Module, strategy: Strategy, processes: int) -> None:
    """Spread a decoder, block by block, if the trainer's strategy asks for it.

    Raises ValueError for strategies and settings that would give something else than one process gives.
    """
    if isinstance(strategy, FSDPStrategy):  # its shards are flat: weight decay would take none for a matrix
        raise ValueError(
            "FSDPStrategy is not used here, as its flat shards forget what a matrix is: ModelParallelStrategy does the "
            "same and keeps it, see configs/scale/fsdp.yaml"
        )
    if not isinstance(strategy, ModelParallelStrategy):
        return
    mesh = strategy.device_mesh
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            "weights are spread whole rows at a time, and no layer's computation is: give ModelParallelStrategy "
            f"tensor_parallel_size 1 and data_parallel_size {processes}, the number of processes"
        )
    if strategy._save_distributed_checkpoint:
        raise ValueError(
            "the best checkpoint is read as one file: give ModelParallelStrategy save_distributed_checkpoint false"
        )
    blocks = cast(nn.ModuleList, network.get_submodule(decoder.blocks(network)))
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh["data_parallel"])
