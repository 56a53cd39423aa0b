"""What `rackscale serve` was asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """Defaults are those of the command line.

    stream_interval_s: a stream's later chunks come at most this often, with all tokens since the
    last one; its first and its last come at once. drain_s: how long running requests may go on after
    a SIGTERM. max_body_mib: larger request bodies are refused.
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

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.served_name or self.model.resolve().name
