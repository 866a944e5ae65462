"""The dense layers that bring the vectors of several teachers into one space, the student's."""

from __future__ import annotations

import torch
from torch import nn

from tnr_dist.config.schema import ProjectionInit


class Projection(nn.Module):
    """W^(ti), b^(ti) of all M teachers: weight [M, D, D] (applied as h W + b), bias [M, D].

    The paper does not say how they start: as the identity; `random` as `nn.Linear` draws them; `xavier` as the
    authors' releases do (Glorot and Bengio 2010, and no bias).
    """

    def __init__(self, teachers: int, dim: int, init: ProjectionInit) -> None:
        super().__init__()
        weight, bias = torch.empty(teachers, dim, dim), torch.zeros(teachers, dim)
        if init == "identity":
            weight = torch.eye(dim).repeat(teachers, 1, 1)
        elif init == "random":
            bound = dim**-0.5
            weight.uniform_(-bound, bound)
            bias.uniform_(-bound, bound)
        else:
            bound = (6 / (dim + dim)) ** 0.5
            weight.uniform_(-bound, bound)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
