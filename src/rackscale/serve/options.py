"""What `rackscale serve` was asked for."""

from dataclasses import dataclass
from pathlib import Path

from rackscale.specs import PoolLayout, Role

DEFAULT_LAYOUT = (
    PoolLayout(role=Role.PREFILL, num_ranks=1),
    PoolLayout(role=Role.DECODE, num_ranks=2),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """Defaults are those of the command line.

    stream_interval_s: a stream's later chunks come at most this often, with all tokens since the
    last one; its first and its last come at once. drain_s: how long running requests may go on after
    a SIGTERM. max_body_mib: larger request bodies are refused. layout: of ranks, unless there is a
    `deployment` file that says it. hosts: that join with ranks at `listen`; 0: all ranks are here.
    hang_limit_s: a process that is silent for so long counts as dead. start_limit_s: how long the ranks
    of a group may take to start. wire: in what format tokens go to experts of other ranks. router_skew:
    for tests, see `runtime.host_model.skewed`.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    served_name: str | None = None
    kernels: str = "auto"
    activations: str = "auto"
    max_model_len: int | None = None
    kv_gib: float | None = None
    block_size: int = 16
    max_batched_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 1024
    log: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    stream_interval_s: float = 0.020
    drain_s: float = 30.0
    max_body_mib: int = 8
    layout: tuple[PoolLayout, ...] = DEFAULT_LAYOUT
    deployment: Path | None = None
    hosts: int = 0
    listen: str | None = None
    hang_limit_s: float = 30.0
    start_limit_s: float = 60.0
    wire: str = "fp32"
    router_skew: float = 0.0

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_name or self.model.resolve().name
