"""Silence library warnings that are expected in this project, each for a reason."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

EXPECTED = (
    r".*configure_optimizers` returned `None`.*",  # closed forms have nothing to optimise
    r".*module\(s\) in eval mode at the start of training.*",  # the steered network is frozen on purpose
    r".*Checkpoint directory .* exists and is not empty.*",  # a run that is repeated replaces its files
    r".*smaller than the logging interval.*",  # a few batches of pairs are all there is
    r".*does not have many workers.*",  # data made on the fly, or small, is faster without
    r".*isinstance\(treespec, LeafSpec\).*",  # a deprecation inside lightning
    r".*callbacks used to create the checkpoint need to be provided.*",  # a test has nothing to resume
    r".*LightningCLI's args parameter is intended to run from within Python.*",  # as the demo and the tests do
    r".*recommended to use `self.log\(.*sync_dist=True.*",  # the values are equal on all processes already
)
RANK_ZERO = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
"""The loggers that Lightning speaks through."""


def hush() -> None:
    """Silence warnings that are expected here, each for its reason, and an advertisement."""
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message)
    for name in RANK_ZERO:
        logging.getLogger(name).addFilter(lambda record: "Tip: " not in record.getMessage())


@contextmanager
def silent() -> Iterator[None]:
    """Silence the expected warnings, and what Lightning says of devices and epochs, while the block runs."""
    with warnings.catch_warnings(), ExitStack() as stack:
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message)
        for name in RANK_ZERO:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        yield
