"""Frozen facts: what a model is, and how a deployment is laid out."""

from rackscale.specs.deployment import DeploymentSpec, GroupSpec, Role
from rackscale.specs.deployment_file import (
    DeploymentFile,
    GroupEntry,
    format_deployment,
    layout_of,
    parse_deployment,
    read_deployment,
    write_deployment,
)
from rackscale.specs.heads import HeadShare, Span, num_kv_copies, share_heads
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
from rackscale.specs.sizing import ONE_RANK, PoolLayout, lay_out, pools_of
from rackscale.specs.sizing import lay_out as one_rank

__all__ = [
    "ONE_RANK",
    "Activation",
    "AttentionSpec",
    "DeploymentFile",
    "DeploymentSpec",
    "GqaSpec",
    "GroupEntry",
    "GroupSpec",
    "HeadShare",
    "LayerSpec",
    "LinearScaling",
    "Llama3Scaling",
    "MlaSpec",
    "ModelSpec",
    "MoeSpec",
    "PoolLayout",
    "QkNorm",
    "Role",
    "RopeScaling",
    "RopeSpec",
    "RouterSpec",
    "Scoring",
    "Span",
    "YarnScaling",
    "format_deployment",
    "lay_out",
    "layout_of",
    "num_kv_copies",
    "one_rank",
    "parse_deployment",
    "pools_of",
    "read_deployment",
    "share_heads",
    "write_deployment",
]
