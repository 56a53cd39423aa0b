"""`rackscale frontend`: the OpenAI-compatible server for workers elsewhere."""

from rackscale.cli import options as o
from rackscale.cli.serve import check_tls, log_to_stderr
from rackscale.serve.discovery import Discovery
from rackscale.serve.options import FrontendOptions


def frontend(
    *,
    host: o.HostOption = "127.0.0.1",
    port: o.PortOption = 8000,
    discovery: o.DiscoveryOption = Discovery.ETCD,
    dynamo_host: o.DynamoHostOption = "127.0.0.1",
    migration_limit: o.MigrationLimitOption = 3,
    tls_cert: o.TlsCertOption = None,
    tls_key: o.TlsKeyOption = None,
    drain_s: o.DrainOption = 30.0,
    as_json: o.JsonLogOption = False,
) -> int:
    """Serve the OpenAI API with workers that `rackscale serve --no-frontend` started.

    Example: ETCD_ENDPOINTS=http://10.0.0.1:2379 rackscale frontend --port 8000
    """
    from rackscale.serve.frontend_server import serve_frontend  # noqa: PLC0415 (--help is fast)

    check_tls(tls_cert, tls_key)
    log_to_stderr(as_json=as_json)
    return serve_frontend(
        FrontendOptions(
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            drain_s=drain_s,
            discovery=discovery,
            dynamo_host=dynamo_host,
            migration_limit=migration_limit,
        )
    )
