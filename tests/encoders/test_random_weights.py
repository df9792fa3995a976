from __future__ import annotations

import torch
from torch import nn

from overtone.encoders import ImageEncoder, build_encoder, with_random_weights
from overtone.integration import JointEncoder


def trained(module: nn.Module) -> nn.Module:
    """Every number of it set to one, as no initialisation does."""
    for value in module.state_dict().values():
        value.fill_(1)
    return module


def test_nothing_of_the_training_is_left_and_the_module_keeps_it() -> None:
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)))
    drawn = with_random_weights(module)
    assert drawn is not None
    assert all(bool((value == 1).all()) for value in module.state_dict().values())
    state = drawn.state_dict()
    assert all(
        not bool((state[name] == 1).all()) for name in ("0.weight", "1.running_mean", "3.weight", "3.bias")
    )


def test_it_is_the_same_for_a_seed_and_leaves_the_global_stream_alone() -> None:
    line, before = nn.Linear(3, 3), torch.get_rng_state()
    drawn = [with_random_weights(line, seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    first, again, other = (module.weight for module in drawn if isinstance(module, nn.Linear))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_encoder_that_was_built_by_name_is_built_again_also_inside_a_joint_one() -> None:
    stages = [build_encoder("small_cnn") for _ in range(2)]
    drawn = with_random_weights(trained(JointEncoder(stages)))
    assert isinstance(drawn, JointEncoder)
    first, second = (next(stage.parameters()) for stage in drawn.stages)
    assert not bool((first == 1).all())
    assert not torch.equal(first, second)
    assert torch.equal(drawn.stages[0].mean, build_encoder("small_cnn").mean)  # type: ignore[arg-type]


def test_statistics_of_the_pictures_are_no_weights() -> None:
    encoder = ImageEncoder(nn.Flatten(), mean=[0.3], std=[0.2], image_size=(2, 2))
    drawn = with_random_weights(encoder)
    assert isinstance(drawn, ImageEncoder)
    assert torch.equal(drawn.mean, encoder.mean)


def test_a_parameter_that_nobody_can_draw_gives_none() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    assert with_random_weights(nn.Sequential(nn.Linear(2, 2), Scale())) is None
