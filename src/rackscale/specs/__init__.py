"""Frozen facts: what a model is, and how a deployment is laid out."""

from rackscale.specs.deployment import DeploymentSpec, GroupSpec, Role
from rackscale.specs.model import (
    Activation,
    AttentionSpec,
    GqaSpec,
    LayerSpec,
    LinearScaling,
    Llama3Scaling,
    MlaSpec,
    ModelSpec,
    MoeSpec,
    QkNorm,
    RopeScaling,
    RopeSpec,
    RouterSpec,
    Scoring,
    YarnScaling,
)
from rackscale.specs.sizing import one_rank

__all__ = [
    "Activation",
    "AttentionSpec",
    "DeploymentSpec",
    "GqaSpec",
    "GroupSpec",
    "LayerSpec",
    "LinearScaling",
    "Llama3Scaling",
    "MlaSpec",
    "ModelSpec",
    "MoeSpec",
    "QkNorm",
    "Role",
    "RopeScaling",
    "RopeSpec",
    "RouterSpec",
    "Scoring",
    "YarnScaling",
    "one_rank",
]
