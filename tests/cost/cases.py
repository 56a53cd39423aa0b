"""Small models and systems for tests of costs."""

import numpy as np

from rackscale.cost import Chips, Precision, Shape, Work
from rackscale.cost.layouts import layouts
from rackscale.specs import GqaSpec, LayerSpec, MlaSpec, ModelSpec, MoeSpec, RopeSpec, RouterSpec, Scoring
from rackscale.specs.catalog import load_system

MLA = MlaSpec(num_heads=8, q_lora_rank=48, kv_lora_rank=32, nope_head_dim=16, rope_head_dim=8, v_head_dim=16)
GQA = GqaSpec(num_heads=8, num_kv_heads=2, head_dim=16)


def model(attention=MLA, *, experts=16, moe_layers=3, layers=4, windows=(None,), shared=32):
    router = RouterSpec(num_experts=experts, top_k=2, scoring=Scoring.SOFTMAX)
    return ModelSpec(
        family="test",
        vocab_size=1000,
        hidden=64,
        attention=attention,
        rope=RopeSpec(theta=1e4, dim=8),
        layers=tuple(
            LayerSpec(moe=number >= layers - moe_layers, window=windows[number % len(windows)])
            for number in range(layers)
        ),
        dense_width=128,
        moe=MoeSpec(router=router, width=32, shared_width=shared) if moe_layers else None,
        norm_eps=1e-6,
        max_positions=4096,
        tied_embeddings=False,
    )


def work(spec=None, *, systems=("hgx-h200",), experts="fp8", recipe=0, balance=0.0, **layout):
    """Work of one row for each system; layout: as `layouts` takes it, one rank with everything by default."""
    shape = Shape.of(model() if spec is None else spec)
    sizes = {"ranks": 1.0, "tp": 1.0, "ep": 1.0, "slots": float(shape.experts), **layout}
    num_rows = max([len(systems), *(np.size(size) for size in sizes.values())])
    names = list(systems) * (num_rows // len(systems))
    formats = [experts] * num_rows
    columns = layouts(**{name: np.broadcast_to(size, num_rows) for name, size in sizes.items()})
    return Work(
        shape=shape,
        chips=Chips.of([load_system(name) for name in names]),
        layouts=columns,
        precision=Precision.of(formats, formats, formats, np.ones(num_rows)),
        recipe=np.full(num_rows, recipe),
        engine=np.full(num_rows, -1),
        balance=np.full(num_rows, balance),
    )
