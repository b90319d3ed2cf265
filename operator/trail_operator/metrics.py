"""The operator's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.admissions = Counter(
            "trail_operator_admissions",
            "Pods that were looked at, by outcome, with the reason where they were left as they are.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        self.admission_seconds = Histogram(
            "trail_operator_admission_seconds",
            "Time to answer one admission review.",
            registry=self.registry,
            buckets=(0.5e-3, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.5, 1.0),
        )
        self.workload_skips = Counter(
            "trail_operator_workload_skips", "Workloads left as they are, by reason.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.stamps = Counter(
            "trail_operator_stamps", "Pod templates changed.", ["change"], registry=self.registry
        )
        self.withdrawals = Counter(
            "trail_operator_withdrawals", "Injections taken back.", ["reason"], registry=self.registry
        )
        self.failures = Counter(
            "trail_operator_failures", "Work that failed and is tried again.", ["part", "cause"],
            registry=self.registry,
        )  # fmt: skip
        self.watches_up = Gauge(
            "trail_operator_watches_up", "1 while this replica hears of changes in the cluster.",
            registry=self.registry,
        )  # fmt: skip
        self.certificate_failures = Counter(
            "trail_operator_certificate_failures", "Changed certificate files that could not be loaded.",
            registry=self.registry,
        )  # fmt: skip
        self.c_changes = Counter(
            "trail_operator_c_changes", "Values of c written, of all workloads.", registry=self.registry
        )
        self.c = Gauge(
            "trail_operator_c", "c in force, as this replica wrote it last.", ["workload"],
            registry=self.registry,
        )  # fmt: skip
        self.leader = Gauge("trail_operator_leader", "1 on the replica that acts.", registry=self.registry)
        self.queue = Gauge(
            "trail_operator_queue", "Objects that wait to be looked at.", registry=self.registry
        )
        self.pods = Gauge(
            "trail_operator_pods", "Injected pods, by state.", ["namespace", "policy", "state"],
            registry=self.registry,
        )  # fmt: skip
