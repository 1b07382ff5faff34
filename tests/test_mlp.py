"""The toy network."""

import pytest
import torch

from lightning_steer.networks import MLP

RESIDUALS = ("none", "projection", "pad", "concat")


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("last", [32, 20])
def test_any_leading_dimensions(residual: str, last: int) -> None:
    net = MLP(24, 6, 4, (32, 32, 16, last), residual)  # type: ignore[arg-type]
    x = torch.randn(2, 5, 24)
    logits = net(x)
    assert logits.shape == (2, 5, 6, 4)
    torch.testing.assert_close(logits[1, 3], net(x[1, 3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_the_residual_is_what_its_name_says(residual: str) -> None:
    net = MLP(24, 6, 4, (32, 32, 16, 32), residual)  # type: ignore[arg-type]
    x = torch.randn(5, 24)
    stream = net.layers(x)
    joined = {
        "none": lambda: stream,
        "projection": lambda: stream + x @ net.residual.linear.weight.T,  # type: ignore[union-attr]
        "pad": lambda: stream + torch.cat([x, torch.zeros(5, 8)], 1),
        "concat": lambda: torch.cat([stream, x], 1),
    }[residual]()
    torch.testing.assert_close(net(x), net.classifier(net.norm(joined)).unflatten(-1, (6, 4)))


def test_the_reports_network() -> None:
    net = MLP()
    assert [layer.linear.out_features for layer in net.layers] == [512, 512, 256, 512]  # type: ignore[union-attr]
    assert net(torch.zeros(1, 480)).shape == (1, 60, 8)


def test_another_residual_is_refused() -> None:
    with pytest.raises(ValueError, match="residual is one of none, projection, pad, concat, not 'skip'"):
        MLP(residual="skip")  # type: ignore[arg-type]
