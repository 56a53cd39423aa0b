"""A `ModelSpec` out of a catalog file's [config] table."""

from rackscale.core import SpecError
from rackscale.specs.catalog.table import Table
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

MOST_LAYERS = 10_000  # a file that says more is damaged


def read_spec(config: Table) -> ModelSpec:
    """The spec. Raises SpecError naming the field that is missing, wrong or unknown, and sizes that
    contradict each other."""
    spec = ModelSpec(
        family=config.text("family"),
        vocab_size=config.whole("vocab_size"),
        hidden=config.whole("hidden"),
        attention=_attention(config.need("attention")),
        rope=_rope(config.need("rope")),
        layers=_layers(config),
        dense_width=config.whole("dense_width"),
        moe=_moe(config),
        norm_eps=config.number("norm_eps"),
        max_positions=config.whole("max_positions"),
        tied_embeddings=config.flag("tied_embeddings"),
        mlp_bias=config.flag("mlp_bias"),
        dtype=config.text("dtype", "bfloat16"),
    )
    config.close()
    if spec.moe is None and any(layer.moe for layer in spec.layers):
        raise SpecError(
            f"{config.where} has layers with experts and no [config.moe]",
            hint="add it, or give dense_layers = num_layers",
        )
    return spec


def _layers(config: Table) -> tuple[LayerSpec, ...]:
    """dense_layers: so many at the start. moe_every: of the rest, each so-manieth has experts. windows: a
    pattern that repeats over the layers, 0 for none."""
    count = config.whole("num_layers")
    dense = config.whole("dense_layers", 0, least=0)
    every = config.whole("moe_every", 1)
    windows = config.wholes("windows", least=0) or (0,)
    if count > MOST_LAYERS or dense > count:
        raise SpecError(
            f"{config.where} has num_layers = {count}, dense_layers = {dense}",
            hint=f"give at most {MOST_LAYERS} layers, and no more dense ones than there are",
        )
    return tuple(
        LayerSpec(
            moe=number >= dense and (number + 1) % every == 0, window=windows[number % len(windows)] or None
        )
        for number in range(count)
    )


def _attention(table: Table) -> AttentionSpec:
    kind = table.choice("kind", ("mla", "gqa"))
    attention = _mla(table) if kind == "mla" else _gqa(table)
    table.close()
    return attention


def _mla(table: Table) -> MlaSpec:
    return MlaSpec(
        num_heads=table.whole("num_heads"),
        q_lora_rank=table.whole("q_lora_rank", 0, least=0) or None,
        kv_lora_rank=table.whole("kv_lora_rank"),
        nope_head_dim=table.whole("nope_head_dim"),
        rope_head_dim=table.whole("rope_head_dim"),
        v_head_dim=table.whole("v_head_dim"),
        bias=table.flag("bias"),
    )


def _gqa(table: Table) -> GqaSpec:
    heads, kv_heads = table.whole("num_heads"), table.whole("num_kv_heads")
    if heads % kv_heads:
        raise SpecError(
            f"{table.where} has {heads} query heads over {kv_heads} key heads",
            hint="one must divide the other",
        )
    return GqaSpec(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=table.whole("head_dim"),
        qk_norm=QkNorm(table.choice("qk_norm", tuple(QkNorm), QkNorm.NONE)),
        qkv_bias=table.flag("qkv_bias"),
        out_bias=table.flag("out_bias"),
        sinks=table.flag("sinks"),
        clip_qkv=None if table.get("clip_qkv") is None else table.number("clip_qkv"),
    )


def _rope(table: Table) -> RopeSpec:
    scaling = table.sub("scaling", required=False)
    rope = RopeSpec(
        theta=table.number("theta"),
        dim=table.whole("dim", least=2),
        interleaved=table.flag("interleaved"),
        scaling=None if scaling is None else _scaling(scaling),
    )
    table.close()
    return rope


def _scaling(table: Table) -> RopeScaling:
    kind = table.choice("kind", ("linear", "llama3", "yarn"))
    scaling: RopeScaling
    match kind:
        case "linear":
            scaling = LinearScaling(factor=table.number("factor"))
        case "llama3":
            scaling = Llama3Scaling(
                factor=table.number("factor"),
                low_freq_factor=table.number("low_freq_factor"),
                high_freq_factor=table.number("high_freq_factor"),
                original_max_positions=table.whole("original_max_positions"),
            )
        case _:
            scaling = YarnScaling(
                factor=table.number("factor"),
                beta_fast=table.number("beta_fast", 32.0),
                beta_slow=table.number("beta_slow", 1.0),
                original_max_positions=table.whole("original_max_positions"),
                attention_factor=table.number("attention_factor"),
                softmax_mscale=table.number("softmax_mscale", 1.0),
                truncate=table.flag("truncate", default=True),
            )
    table.close()
    return scaling


def _moe(config: Table) -> MoeSpec | None:
    table = config.sub("moe", required=False)
    if table is None:
        return None
    moe = MoeSpec(
        router=_router(config.need("router")),
        width=table.whole("width"),
        shared_width=table.whole("shared_width", 0, least=0),
        activation=Activation(table.choice("activation", tuple(Activation), Activation.SWIGLU)),
        expert_bias=table.flag("expert_bias"),
        swiglu_alpha=table.number("swiglu_alpha", 1.702),
        swiglu_limit=table.number("swiglu_limit", 7.0),
    )
    table.close()
    return moe


def _router(table: Table) -> RouterSpec:
    router = RouterSpec(
        num_experts=table.whole("num_experts"),
        top_k=table.whole("top_k"),
        scoring=Scoring(table.choice("scoring", tuple(Scoring))),
        correction_bias=table.flag("correction_bias"),
        bias=table.flag("bias"),
        num_groups=table.whole("num_groups", 1),
        topk_groups=table.whole("topk_groups", 1),
        renormalise=table.flag("renormalise", default=True),
        scale=table.number("scale", 1.0),
    )
    table.close()
    experts, groups, taken = router.num_experts, router.num_groups, router.topk_groups
    if experts % groups or taken > groups or router.top_k > experts // groups * taken:
        raise SpecError(
            f"{table.where} takes {router.top_k} experts a token, of {taken} of {groups} groups of"
            f" {experts} experts",
            hint="groups must be of one size, and there must be as many groups and experts as are taken",
        )
    return router
