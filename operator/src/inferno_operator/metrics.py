"""The operator's own metrics, in Prometheus' terms."""

from prometheus_client import Counter, Gauge, Histogram

_PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
RECONCILE_SECONDS = Histogram(
    "inferno_operator_reconcile_duration_seconds",
    "Seconds that one reconciliation took.",
    buckets=_PASS_BUCKETS,
)
RECONCILE_OWN_SECONDS = Histogram(
    "inferno_operator_reconcile_own_seconds",
    "Seconds that one reconciliation took, without those in which it waited for the Kubernetes API.",
    buckets=_PASS_BUCKETS,
)
RECONCILES = Counter(
    "inferno_operator_reconciles_total",
    "Reconciliations by how they ended, success, retry (the cluster could not answer) or failed (somebody must act).",
    ["result", "reason"],
)
QUEUE_DEPTH = Gauge("inferno_operator_queue_depth", "Models that wait for their reconciliation.")
OBJECTS = Gauge("inferno_operator_objects", "Objects that the operator keeps in memory, as the watches reported them.")
API_WRITES = Counter(
    "inferno_operator_api_writes_total",
    "Writes to the Kubernetes API that it took, without those to the operator's own Lease.",
    ["verb", "kind"],
)
WATCH_STALLS = Counter(
    "inferno_operator_watch_stalls_total", "Times that the watches were begun anew because they had missed changes."
)
SCALINGS = Counter(
    "inferno_operator_scalings_total", "Decisions for more pods of a model (up) or fewer (down).", ["direction"]
)
SCRAPE_FAILURES = Counter(
    "inferno_operator_scrape_failures_total", "Times that a serving pod did not say what it had to do."
)
READY_SECONDS = Histogram(
    "inferno_operator_time_to_ready_seconds",
    "Seconds from when a model was made, or ceased to be ready, until all its pods served.",
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200),
)
DOWNLOAD_BYTES = Counter(
    "inferno_operator_download_bytes_total", "Bytes that came over the network for models that have been fetched."
)
LEADER = Gauge("inferno_operator_leader", "1 while this replica acts, 0 while it stands by.")
