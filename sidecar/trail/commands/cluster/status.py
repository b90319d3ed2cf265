"""`trail status`: operator, policies and workloads of a cluster at a glance."""

import argparse
import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trail.commands.cluster.outlook import Operator, find_operator, sight_of, withdrawn
from trail.commands.cluster.session import (
    APPS,
    NO_ANSWER,
    PLURALS,
    Object,
    Session,
    add_arguments,
    policies,
)
from trail.commands.cluster.session import (
    run as run_session,
)
from trail.wire.names import ENV_METRICS_PORT
from trail_operator import names
from trail_operator.admission.inject import read_status
from trail_operator.admission.pods import workload_of
from trail_operator.admission.stamp import Stamp
from trail_operator.cluster_api.kube import KubeError, path
from trail_operator.reasons import Reason
from trail_operator.reconcile.cluster import to_workload
from trail_operator.reconcile.status import condition

POLICY_COLUMNS = (
    "POLICY",
    "ORDER",
    "MODE",
    "C",
    "READY",
    "DEGRADED",
    "PODS",
    "HEALTHY",
    "FALLING BACK",
    "KV",
)
_PACING = re.compile(r'^trail_pacing_info\{profile="([^"]*)"\}', re.MULTILINE)
_ANSWER_S = 3.0
"""A pod that does not answer by then is one of which this is not known."""
WORKLOAD_COLUMNS = ("WORKLOAD", "ASKS", "POLICY", "PODS WITH TRAIL", "C", "PACING", "LEFT AS THEY ARE")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail status`."""
    parser.description = "Show the operator, TrailPolicies, and the workloads that TRAIL has to do with."
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_arguments(parser, everywhere=True)


def run(args: argparse.Namespace) -> int:
    """0, or 1 with the reason."""
    return run_session("status", args, lambda session: _status(session, args))


async def _status(session: Session, args: argparse.Namespace) -> int:
    namespace = None if args.all_namespaces else session.namespace
    found = await policies(session, namespace)
    operator = await find_operator(session)
    pods = await session.kube.all(path("v1", "pods", namespace))
    records = [
        to_workload(obj, kind)
        for kind, plural in PLURALS.items()
        for obj in await session.kube.all(path(APPS, plural, namespace))
    ]
    asking = [record for record in records if record.annotation or record.stamp != Stamp()]
    annotated = {record.key: record.annotation or "" for record in asking}
    policy_rows = [policy_row(policy) for policy in found]
    workloads = workload_rows(found, pods, annotated, operator)
    await add_pacing(session, workloads, pods)
    if args.json:
        report = {"operator": _operator(operator), "policies": policy_rows, "workloads": workloads}
        print(json.dumps(report, indent=2))
        return 0
    print(f"operator: {_operator(operator)}\n")
    where = "the cluster" if namespace is None else f"namespace {namespace}"
    for columns, rows, what in (
        (POLICY_COLUMNS, policy_rows, "TrailPolicy"),
        (WORKLOAD_COLUMNS, workloads, "workload with TRAIL"),
    ):
        print(table(columns, [list(row.values()) for row in rows]) if rows else f"no {what} in {where}")
        print()
    return 0


def policy_row(policy: Object) -> dict[str, Any]:
    """A policy's line."""
    spec, status = policy.get("spec") or {}, policy.get("status") or {}
    pods = status.get("pods") or {}
    degraded = condition(status, "Degraded")
    ready = condition(status, "Ready")
    return {
        "policy": f"{policy['metadata']['namespace']}/{policy['metadata']['name']}",
        "order": (spec.get("policy") or {}).get("name", "trail"),
        "mode": (spec.get("c") or {}).get("mode", "Auto"),
        "c": (status.get("c") or {}).get("effective"),
        "ready": ready.get("status") if ready.get("status") != "False" else ready.get("message"),
        "degraded": f"{degraded['reason']}: {degraded['message']}"
        if degraded.get("status") == "True"
        else None,
        "injected": pods.get("injected"),
        "healthy": pods.get("healthy"),
        "fallingBack": pods.get("fallingBack"),
        "kvPressure": status.get("kvPressure"),
    }


def workload_rows(
    found: Sequence[Object], pods: Sequence[Object], annotated: Mapping[str, str], operator: Operator
) -> list[dict[str, Any]]:
    """Lines of the workloads that ask for TRAIL or whose pods the webhook has spoken about."""
    c = {
        item["workload"]: item.get("c")
        for policy in found
        for item in (policy.get("status") or {}).get("workloads") or ()
    }
    rows = {key: _row(key, asks) for key, asks in annotated.items()}
    totals: dict[str, int] = {}
    for pod in pods:
        key = workload_of(pod, pod["metadata"]["namespace"])
        status = read_status(pod)
        if key not in rows and status is None:
            continue
        totals[key] = totals.get(key, 0) + 1
        row = rows.setdefault(key, _row(key, ""))
        if status is None:
            continue
        if status.get("injected") is True:
            row["injected"] += 1
            row["policy"] = status.get("policy")
        else:
            row["skipped"] = status.get("reason")
    sight = sight_of(found, operator)
    for key, row in rows.items():
        if withdrawn(sight, key) is not None:
            # Pods that are made anew are; those that are there may have come before.
            row["skipped"] = str(Reason.WITHDRAWN)
        row["injected"] = f"{row['injected']}/{totals.get(key, 0)}"
        row["c"] = c.get(key)
    return [rows[key] for key in sorted(rows)]


def _row(key: str, asks: str) -> dict[str, Any]:
    return {"workload": key, "asks": asks or None, "policy": None, "injected": 0, "c": None, "pacing": None,
            "skipped": None}  # fmt: skip


async def add_pacing(session: Session, rows: Sequence[dict[str, Any]], pods: Sequence[Object]) -> None:
    """Adds to each workload's line the pacing of one of its sidecars, where one may ask it and it answers."""
    running = {
        workload_of(pod, pod["metadata"]["namespace"]): pod
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
    }
    asked = [row for row in rows if row["workload"] in running]
    said = await asyncio.gather(*(_pacing(session, running[row["workload"]]) for row in asked))
    for row, pacing in zip(asked, said, strict=True):
        row["pacing"] = pacing


async def _pacing(session: Session, pod: Object) -> str | None:
    """The profile that a pod's metrics name."""
    port = _metrics_port(pod)
    if port is None:
        return None
    meta = pod["metadata"]
    where = path("v1", "pods", meta["namespace"], f"{meta['name']}:{port}", "proxy/metrics")
    try:
        page = await asyncio.wait_for(session.kube.text(where), _ANSWER_S)
    except (KubeError, *NO_ANSWER):
        return None
    found = _PACING.search(page)
    return found[1] if found else None


def _metrics_port(pod: Object) -> str | None:
    """Of its sidecar; None where it has none, or serves no metrics."""
    spec = pod.get("spec") or {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for entry in container.get("env") or () if container.get("name") == names.SIDECAR else ():
            if entry.get("name") == ENV_METRICS_PORT and str(entry.get("value", "")).isdigit():
                return str(entry["value"])
    return None


def _operator(operator: Operator) -> str:
    if not operator.name:
        return "not found, or you may not look"
    return f"{operator.namespace}/{operator.name}, {operator.ready} of {operator.wanted} replicas ready"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns of text; '-' for what is not known."""
    texts = [list(columns), *[[_shown(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    )


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
