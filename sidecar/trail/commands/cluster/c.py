"""`trail c get|set`: the bound on preemption, as it is and as it should be."""

import argparse
import math
from typing import Any

from trail.commands.cluster.outlook import find_operator, foreign, look, of_workload
from trail.commands.cluster.session import (
    ClusterError,
    Object,
    Session,
    Workload,
    add_arguments,
    fetch,
    parse_workload,
)
from trail.commands.cluster.session import (
    run as run_session,
)
from trail.commands.cluster.status import table
from trail_operator import names
from trail_operator.cluster_api.kube import path
from trail_operator.policy.fields import PolicyError
from trail_operator.policy.resource import TrailPolicy, parse_policy
from trail_operator.reasons import Skip

COLUMNS = ("WORKLOAD", "C", "SINCE", "KV", "WHY")
AUTO = "auto"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `trail c`."""
    parser.description = (
        "Show or set c of a TrailPolicy. Running pods follow within seconds; none is restarted."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="get|set", required=True)
    get = verbs.add_parser("get", help="show c, since when and why", allow_abbrev=False)
    change = verbs.add_parser("set", help="fix c, or hand it to the controller", allow_abbrev=False)
    change.add_argument(
        "value", type=_value, metavar="C|auto", help="0 to 1, or auto: the controller decides"
    )
    for verb in (get, change):
        verb.add_argument("target", nargs="?", default=names.DEFAULT_POLICY, metavar="TARGET",
            help="POLICY, or deploy/NAME for the policy that applies to it (%(default)s)")  # fmt: skip
        add_arguments(verb)
    change.add_argument("--min", type=_fraction, default=None, metavar="C", help="lowest c of the controller")
    change.add_argument(
        "--max", type=_fraction, default=None, metavar="C", help="highest c of the controller"
    )


def run(args: argparse.Namespace) -> int:
    """0, or 1 with the reason."""
    work = _set if args.verb == "set" else _get
    return run_session(f"c {args.verb}", args, lambda session: work(session, args))


async def _get(session: Session, args: argparse.Namespace) -> int:
    policy = await _policy(session, args.target)
    spec = (policy.get("spec") or {}).get("c") or {}
    status = policy.get("status") or {}
    c = status.get("c") or {}
    place = f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
    low, high = spec.get("min", 0), spec.get("max", 1)
    print(f"policy  {place}")
    print(f"mode    {spec.get('mode', 'Auto')}, from {low} to {high}"
          + (f", value {spec['value']}" if "value" in spec else ""))  # fmt: skip
    if "effective" not in c:
        print("c       not known: the operator has not looked at this policy yet")
        return 0
    print(f"c       {c['effective']:g} since {c.get('since', '?')}: {c.get('reason', '')}")
    rows = [[w["workload"], w.get("c"), w.get("since"), w.get("kvPressure"), w.get("reason")]
            for w in status.get("workloads") or ()]  # fmt: skip
    if rows:
        print("\n" + table(COLUMNS, rows))
    return 0


async def _set(session: Session, args: argparse.Namespace) -> int:
    policy = await _policy(session, args.target)
    namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
    before = (policy.get("spec") or {}).get("c") or {}
    change: dict[str, Any] = {"mode": "Auto" if args.value == AUTO else "Fixed"}
    if args.value != AUTO:
        change["value"] = args.value
    for bound in ("min", "max"):
        if (value := getattr(args, bound)) is not None:
            change[bound] = value
    after = {**policy, "spec": {**(policy.get("spec") or {}), "c": {**before, **change}}}
    try:
        # Servers before 1.25 do not check the rules between fields.
        parse_policy(after)
    except PolicyError as error:
        raise ClusterError(f"TrailPolicy {namespace}/{name} would be invalid: {error}") from error
    version = {"resourceVersion": policy["metadata"]["resourceVersion"]}
    where = path(names.API_VERSION, names.PLURAL, namespace, name)
    await session.kube.patch(where, {"metadata": version, "spec": {"c": change}})
    said = "the controller decides" if args.value == AUTO else f"c is fixed at {args.value:g}"
    print(f"TrailPolicy {namespace}/{name}: {said}; all of its pods follow")
    return 0


async def _policy(session: Session, target: str) -> Object:
    """The policy that is meant. Raises ClusterError."""
    if "/" not in target or target.startswith("policy/"):
        name = target.removeprefix("policy/")
        where = path(names.API_VERSION, names.PLURAL, session.namespace, name)
        return await fetch(session, where, f"TrailPolicy {name}")
    try:
        workload: Workload = parse_workload(target)
    except argparse.ArgumentTypeError as error:
        raise ClusterError(f"{error}, or the name of a TrailPolicy") from error
    obj = await fetch(session, workload.path(session.namespace), str(workload))
    annotation = (obj["metadata"].get("annotations") or {}).get(names.INJECT)
    sight = await look(session, await find_operator(session), foreign(annotation))
    outcome = of_workload(sight, obj, workload.kind).outcome
    if not isinstance(outcome, TrailPolicy):
        why = f": {outcome.message}" if isinstance(outcome, Skip) else ""
        raise ClusterError(f"no TrailPolicy applies to {workload}{why}")
    where = path(names.API_VERSION, names.PLURAL, outcome.namespace, outcome.name)
    return await fetch(session, where, f"TrailPolicy {outcome.key}")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to 1")
    return value


def _value(text: str) -> float | str:
    return AUTO if text.lower() == AUTO else _fraction(text)
