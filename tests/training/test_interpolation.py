"""Interpolated weights: where they lie, that training does not notice, that a start is exported bit for bit."""

import pytest
import torch
from torch import nn

from colbert_lab.training.fit import Training
from colbert_lab.training.interpolation import Interpolation


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_the_weights_lie_between_start_and_trained_and_come_back_bit_for_bit(layer):
    start = weights(layer)
    interpolation = Interpolation(layer, 0.25)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    trained = weights(layer)
    with interpolation.applied():
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter, 0.75 * start[name] + 0.25 * trained[name])
    assert all(torch.equal(p, trained[name]) for name, p in layer.named_parameters())
    with pytest.raises(RuntimeError, match="judging failed"), interpolation.applied():
        raise RuntimeError("judging failed")
    assert all(torch.equal(p, trained[name]) for name, p in layer.named_parameters())


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_untrained_model_is_itself(layer, share):
    start = weights(layer)
    with Interpolation(layer, share).applied():
        assert all(torch.equal(p, start[name]) for name, p in layer.named_parameters())


def test_a_share_outside_of_the_way_is_refused():
    assert Training.problems(interpolate=0.5) == Training.problems(interpolate=1) == []
    assert ["interpolate=0" in problem for problem in Training.problems(interpolate=0)] == [True]
    assert ["interpolate=1.5" in problem for problem in Training.problems(interpolate=1.5)] == [True]
