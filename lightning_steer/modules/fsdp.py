"""Shard weights over processes (FSDP2): each process keeps its share, and gathers a block's weights when it runs."""

from typing import cast

from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from lightning_steer.errors import UserError
from lightning_steer.lm import decoder


def spread(network: nn.Module, strategy: Strategy, processes: int) -> None:
    """Shard a decoder block by block, if the trainer's strategy asks for it.

    Raises ValueError for strategies and settings whose results would differ from those of one process.
    """
    if isinstance(strategy, FSDPStrategy):  # its shards are flat, so weight decay would recognise no matrix
        raise UserError(
            "FSDPStrategy is not used here, as its flat shards forget what a matrix is: ModelParallelStrategy does the "
            "same and keeps it, see configs/scale/fsdp.yaml"
        )
    if not isinstance(strategy, ModelParallelStrategy):
        return
    mesh = strategy.device_mesh
    if mesh["tensor_parallel"].size() > 1:
        raise UserError(
            "weights are spread whole rows at a time, and no layer's computation is: give ModelParallelStrategy "
            f"tensor_parallel_size 1 and data_parallel_size {processes}, the number of processes"
        )
    if strategy._save_distributed_checkpoint:
        raise UserError(
            "the best checkpoint is read as one file: give ModelParallelStrategy save_distributed_checkpoint false"
        )
    blocks = cast(nn.ModuleList, network.get_submodule(decoder.blocks(network)))
    for module in (*blocks, network):
        fully_shard(module, mesh=mesh["data_parallel"])
