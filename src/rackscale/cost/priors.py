"""What each parameter of the cost model is, and what is believed of it before a fit."""

from dataclasses import dataclass

GENERATIONS = ("hopper", "blackwell")
ENGINES = ("sglang", "trtllm")
GROUPS = {
    "generation": GENERATIONS,
    "engine": ENGINES,
    "recipe": tuple(f"{generation}-{engine}" for generation in GENERATIONS for engine in ENGINES),
    "format": ("int4", "fp8", "nvfp4"),
}
SHARE, FACTOR, NUMBER = "share", "factor", "number"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """value: the centre. kind: a share lies between 0 and 1, a factor above 0; fits move the logit of one and
    the logarithm of the other, a number as it is. spread: standard deviation of what fits move. by: kinds of
    groups that it varies by; `between`: standard deviation of what a group moves it by."""

    value: float
    spread: float
    what: str
    source: str
    kind: str = FACTOR
    by: tuple[str, ...] = ()
    between: float = 0.0


KERNELS = "facts/hardware.md, what kernels reach"
NONE = "no published figure: wide"
TTFT = "facts/planner_peers.md on TTFT"
RECIPES = "engines' public recipes"
ROWS = "rates and 99th percentiles of the rows themselves"

PRIORS = {
    "expert_bandwidth": Prior(
        value=0.65,
        spread=0.7,
        kind=SHARE,
        by=(
            "generation",
            "format",
        ),
        between=0.4,
        what="grouped GEMM of few tokens, share of HBM's bandwidth",
        source=KERNELS + ": FP8 block 76 % on H200, NVFP4 64 to 67 % on B200 and GB200",
    ),
    "expert_rate": Prior(
        value=0.35,
        spread=0.5,
        kind=SHARE,
        by=(
            "generation",
            "format",
        ),
        between=0.35,
        what="grouped GEMM of many tokens, share of its arithmetic's FLOP/s",
        source=KERNELS + ": FP8 block 384 of 1979 TFLOP/s, NVFP4 1860 of 10000",
    ),
    "linear_bandwidth": Prior(
        value=0.65,
        spread=0.7,
        kind=SHARE,
        by=("generation",),
        between=0.3,
        what="GEMM of few tokens, share of HBM's bandwidth",
        source=KERNELS + ": BF16 70 to 93 %, FP8 51 to 91 %",
    ),
    "linear_rate": Prior(
        value=0.62,
        spread=0.5,
        kind=SHARE,
        by=("generation",),
        between=0.3,
        what="GEMM of many tokens, share of FLOP/s",
        source=KERNELS + ": FP8 block 63 %, BF16 72 to 80 %",
    ),
    "kv_bandwidth": Prior(
        value=0.65,
        spread=0.7,
        kind=SHARE,
        by=("generation",),
        between=0.3,
        what="decode attention, share of HBM's bandwidth",
        source=KERNELS + ": 62 to 86 %",
    ),
    "attention_rate": Prior(
        value=0.55,
        spread=0.5,
        kind=SHARE,
        by=("generation",),
        between=0.4,
        what="attention, share of BF16 FLOP/s",
        source=KERNELS + ": prefill 56 % on H200, 51 % on B200",
    ),
    "routing_skew": Prior(
        value=0.5, spread=0.4, what="exponent of experts' popularity under random tokens", source=NONE
    ),
    "grouped_gemm_launch": Prior(
        value=20e-6,
        spread=0.5,
        what="launches of a grouped GEMM that runs alone, s",
        source=KERNELS + ": 21 us at one token",
    ),
    "reduce_latency": Prior(
        value=8e-6,
        spread=0.4,
        by=("generation",),
        between=0.2,
        what="an all-reduce of few bytes, s",
        source=KERNELS + ": 7 to 25 us alone, less when fused",
    ),
    "reduce_bandwidth": Prior(
        value=0.5,
        spread=0.7,
        kind=SHARE,
        by=("generation",),
        between=0.4,
        what="all-reduce, share of the link",
        source=KERNELS + ": 69 to 75 % at 512 MiB",
    ),
    "layer_overhead": Prior(
        value=30e-6,
        spread=0.4,
        by=("generation",),
        between=0.3,
        what="short kernels of a layer, s",
        source=NONE,
    ),
    "layer_overhead_recipe": Prior(
        value=1,
        spread=0.02,
        by=(
            "recipe",
            "format",
        ),
        between=0.25,
        what="the same by engine, generation and format",
        source=NONE,
    ),
    "overlap": Prior(
        value=0.7,
        spread=0.6,
        kind=SHARE,
        what="share of an exchange that another micro-batch's computing hides",
        source=NONE,
    ),
    "eager_launches": Prior(
        value=0.6e-3,
        spread=0.5,
        what="host time to launch a layer's kernels without CUDA graphs, s",
        source=TTFT + ": 30 ms of forward calls for 36 to 61 layers",
    ),
    "expert_parallel_overhead": Prior(
        value=4e-6,
        spread=0.6,
        by=("recipe",),
        between=0.4,
        what="of a layer with experts spread, s",
        source=NONE,
    ),
    "exchange_in_place": Prior(
        value=1.3,
        spread=0.3,
        by=("engine",),
        between=0.25,
        what="dispatch and combine of few tokens inside an engine, over alone",
        source=KERNELS + ": DeepEP 60 us alone, 90 to 170 in SGLang",
    ),
    "prefill_exchange_in_place": Prior(
        value=1.3,
        spread=0.3,
        by=("engine",),
        between=0.25,
        what="the same of prompts",
        source=KERNELS + ": the same",
    ),
    "network_latency": Prior(
        value=40e-6, spread=0.4, what="an all-reduce between domains, more than inside, s", source=NONE
    ),
    "network_bandwidth": Prior(
        value=0.75,
        spread=0.7,
        kind=SHARE,
        what="all-reduce between domains, share of the network's rate",
        source=KERNELS + ": 39 to 46 of 50 GB/s",
    ),
    "host_step": Prior(
        value=3e-3,
        spread=0.5,
        by=("engine",),
        between=0.3,
        what="the engine's work between steps, s",
        source=NONE,
    ),
    "host_sequence": Prior(
        value=5e-6,
        spread=0.7,
        by=("engine",),
        between=0.4,
        what="the same for each sequence of a rank, s",
        source=NONE,
    ),
    "host_prompt": Prior(
        value=15e-3,
        spread=0.6,
        by=("engine",),
        between=0.4,
        what="the engine's work for a step of prompts, s",
        source=TTFT + ": kernel sums lie 30 ms under TTFT",
    ),
    "prefill_slowdown": Prior(
        value=1,
        spread=0.25,
        by=("engine",),
        between=0.2,
        what="prompts' steps over the sum of their operators",
        source=NONE,
    ),
    "interference": Prior(
        value=1,
        spread=0.3,
        by=("engine",),
        between=0.25,
        what="how much of a prompt's time its neighbours' decoding waits",
        source=NONE,
    ),
    "accepted_drafts": Prior(
        value=0.8,
        spread=0.3,
        by=("engine",),
        between=0.2,
        what="tokens that a step of speculation adds",
        source=RECIPES + ": 0.6 to 0.9 accepted of each",
    ),
    "draft_cost": Prior(
        value=0.1,
        spread=0.5,
        by=("engine",),
        between=0.3,
        what="the draft layer's share of a step",
        source=NONE,
    ),
    "verified_drafts": Prior(
        value=0.8, spread=0.4, what="more positions that a step of speculation computes", source=NONE
    ),
    "maturity": Prior(
        value=0.015,
        spread=0.015,
        kind=NUMBER,
        by=("engine",),
        between=0.01,
        what="how much faster an engine becomes in a month, log",
        source=NONE,
    ),
    "maturity_pools": Prior(
        value=0.03,
        spread=0.04,
        kind=NUMBER,
        by=("engine",),
        between=0.04,
        what="the same of pools until March 2026, on top, log",
        source=NONE,
    ),
    "early_decode": Prior(
        value=0,
        spread=0.3,
        kind=NUMBER,
        by=("engine",),
        between=0.3,
        what="how much slower pools decoded before mid December 2025, log",
        source=NONE,
    ),
    "early_prefill": Prior(
        value=0,
        spread=0.3,
        kind=NUMBER,
        by=("engine",),
        between=0.3,
        what="the same of their prompts",
        source=NONE,
    ),
    "first_token": Prior(
        value=0.05,
        spread=0.6,
        by=("engine",),
        between=0.4,
        what="tokenising, admission and the way of the first token, s",
        source=TTFT + ": 16 ms",
    ),
    "wave": Prior(
        value=0.02,
        spread=0.7,
        by=("recipe",),
        between=0.5,
        what="share of all requests that wait for prompts at the same time",
        source=NONE,
    ),
    "attention_dp_wait": Prior(
        value=20,
        spread=0.6,
        by=("engine",),
        between=0.7,
        what="steps that attention-parallel ranks wait to start prompts together",
        source=NONE,
    ),
    "poll_steps": Prior(
        value=2,
        spread=0.7,
        by=("recipe",),
        between=0.8,
        what="steps between an engine's looks for new requests",
        source=NONE,
    ),
    "transfer": Prior(
        value=0.06,
        spread=0.6,
        by=("engine",),
        between=0.4,
        what="handing a prompt over to its decode rank, s",
        source=NONE,
    ),
    "transfer_token": Prior(
        value=15e-6,
        spread=0.7,
        by=("engine",),
        between=0.4,
        what="the same for each of its tokens, s",
        source=TTFT + ": 40 ms for 120,000 descriptors of blocks",
    ),
    "disaggregated_decode": Prior(
        value=1,
        spread=0.15,
        by=("engine",),
        between=0.1,
        what="decode steps of pools over mixed ones",
        source=NONE,
    ),
    "disaggregated_prefill": Prior(
        value=1,
        spread=0.2,
        by=("engine",),
        between=0.15,
        what="prompts of pools over mixed ones",
        source=NONE,
    ),
    "attention_dp_decode": Prior(
        value=1,
        spread=0.2,
        by=("engine",),
        between=0.1,
        what="decode steps of attention-parallel ranks over the mean of ranks",
        source=NONE,
    ),
    "queue": Prior(
        value=1, spread=0.4, what="waiting at mixed ranks over that of an M/D/1 queue", source=NONE
    ),
    "queue_disaggregated": Prior(value=1, spread=0.4, what="the same at prefill ranks", source=NONE),
    "prompt_tokens": Prior(
        value=16384,
        spread=0.3,
        by=("engine",),
        between=0.2,
        what="tokens of prompts in a step of a rank",
        source=RECIPES + ": chunked prefill of 8192 to 32768",
    ),
    "compile_stall": Prior(
        value=40,
        spread=0.5,
        by=("format",),
        between=0.7,
        what="kernels compiled during a run of SGLang on Blackwell in 2025, s",
        source=ROWS + ": 99th percentile of TTFT of 70 s",
    ),
    "ramp": Prior(
        value=1.02, spread=0.02, what="start and end of a benchmark, over the steady state", source=ROWS
    ),
    "ramp_disaggregated": Prior(value=1.05, spread=0.03, what="the same of pools", source=ROWS),
}
