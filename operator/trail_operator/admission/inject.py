"""Puts TRAIL into a pod, and takes it out again. Pure: a pod in, another pod out.

vLLM's container keeps image, command and arguments. It gets the plugin's directory at the end of PYTHONPATH,
a few variables and two mounts.

Sidecar and vLLM may run as different users, and share files of mode 0660. So the sidecar's primary group is
one that the whole pod is made a supplementary member of. An `fsGroup` would change the owner of the user's
own volumes; where the pod has one, the kubelet gives our volumes that group and its set-group-id bit, and
every container is a member of it anyway.

What cannot be seen from the outside is written into the status annotation, so that `strip` gives back the
pod as it was. Lists and objects that become empty go, as the API server leaves them out.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from trail.wire.names import ENV_VLLM_PLUGINS, with_plugin
from trail_operator import names
from trail_operator.admission.confighash import injection_hash, policy_hash
from trail_operator.admission.containers import (
    Built,
    Plan,
    engine_defaults,
    engine_environment,
    engine_mounts,
    init_containers,
    sidecar,
    volumes,
)
from trail_operator.admission.pods import annotations, environment
from trail_operator.reasons import Skip


def inject(pod: Mapping[str, Any], plan: Plan) -> Built:
    """`pod`, which `strip` has been through and `examine` has found a target in, with TRAIL."""
    out = copy.deepcopy(dict(pod))
    spec = out["spec"]
    vllm = spec["containers"][plan.target.index]
    added, replaced = _extend_environment(vllm, _wanted_environment(pod, vllm, plan))
    vllm.setdefault("volumeMounts", []).extend(engine_mounts())
    spec.setdefault("initContainers", []).extend(init_containers(plan, pod))
    if not plan.native:
        spec["containers"].append(sidecar(plan, pod))
    spec.setdefault("volumes", []).extend(volumes(plan))
    bare = "securityContext" not in spec
    groups = spec.setdefault("securityContext", {}).setdefault("supplementalGroups", [])
    joined = plan.settings.group not in groups
    if joined:
        groups.append(plan.settings.group)
    metadata = out.setdefault("metadata", {})
    metadata.setdefault("labels", {})[names.INJECTED_LABEL] = "true"
    _write_status(
        out,
        {
            "injected": True,
            "policy": plan.policy.key,
            "policyHash": policy_hash(plan.policy),
            "hash": injection_hash(plan.policy, plan.settings),
            "workload": plan.workload,
            "container": plan.target.name,
            "native": plan.native,
            "added": added,
            "replaced": replaced,
            "group": plan.settings.group if joined else None,
            "bare": bare,
        },
    )
    return out


def mark_skipped(pod: Mapping[str, Any], skip: Skip) -> Built:
    """`pod`, which `strip` has been through, with the reason why nothing was injected."""
    out = copy.deepcopy(dict(pod))
    _write_status(out, {"injected": False, "reason": str(skip.reason), "message": skip.message})
    return out


def strip(pod: Mapping[str, Any]) -> Built:
    """`pod` without anything of ours. Takes out only what the status annotation says was put in."""
    status = read_status(pod)
    mine = [c for c in pod["spec"]["containers"] if c.get("name") not in names.CONTAINERS]
    # A pod of nothing but ours was made by hand; without them it would be none.
    if status is None or not mine:
        return dict(pod)
    out = copy.deepcopy(dict(pod))
    metadata, spec = out["metadata"], out.get("spec", {})
    del metadata["annotations"][names.STATUS]
    if status.get("injected") is True:
        _drop(metadata, "labels", lambda key: key == names.INJECTED_LABEL)
        for part in ("containers", "initContainers"):
            _keep(spec, part, lambda c: c.get("name") not in names.CONTAINERS)
        _keep(spec, "volumes", lambda v: v.get("name") not in names.VOLUMES)
        for container in spec.get("containers", ()):
            if container.get("name") == status.get("container"):
                _restore(container, status)
        _leave_group(spec, status)
    _drop(metadata, "annotations", lambda _: False)
    return out


def read_status(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier call left on a pod; None where nothing, or nothing readable, is there."""
    text = annotations(pod).get(names.STATUS)
    if text is None:
        return None
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return status if isinstance(status, dict) else None


def _wanted_environment(pod: Mapping[str, Any], vllm: Mapping[str, Any], plan: Plan) -> dict[str, str]:
    present = environment(vllm)
    defaults = {name: value for name, value in engine_defaults(plan).items() if name not in present}
    wanted = {**engine_environment(plan), **defaults}
    # Behind the user's own entries: nothing of theirs is shadowed.
    path = str(present.get("PYTHONPATH", {}).get("value") or annotations(pod).get(names.PYTHON_PATH) or "")
    wanted["PYTHONPATH"] = ":".join(filter(None, [path.rstrip(":"), names.ENGINE_PATH]))
    if ENV_VLLM_PLUGINS in present:
        allowed = str(present[ENV_VLLM_PLUGINS].get("value") or "")
        wanted[ENV_VLLM_PLUGINS] = with_plugin(allowed)
    return wanted


def _extend_environment(container: Built, wanted: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Sets variables; returns the names of the new ones and the entries that were replaced."""
    env = container.setdefault("env", [])
    replaced: dict[str, Any] = {}
    for name, value in wanted.items():
        # Of several entries with one name the last counts.
        places = [i for i, entry in enumerate(env) if entry.get("name") == name]
        if places:
            replaced[name] = env[places[-1]].get("value")
            env[places[-1]] = {"name": name, "value": value}
        else:
            env.append({"name": name, "value": value})
    return [name for name in wanted if name not in replaced], replaced


def _restore(container: Built, status: Mapping[str, Any]) -> None:
    added = status.get("added")
    replaced = status.get("replaced")
    _keep(container, "volumeMounts", lambda m: m.get("name") not in names.VOLUMES)
    if isinstance(added, list):
        _keep(container, "env", lambda e: e.get("name") not in added)
    for name, value in replaced.items() if isinstance(replaced, dict) else ():
        places = [e for e in container.get("env", ()) if e.get("name") == name]
        if places:
            entry = places[-1]
            entry.clear()
            entry.update({"name": name} if value is None else {"name": name, "value": value})


def _leave_group(spec: Built, status: Mapping[str, Any]) -> None:
    context = spec.get("securityContext")
    groups = context.get("supplementalGroups") if isinstance(context, dict) else None
    if not isinstance(context, dict) or not isinstance(groups, list):
        return
    if status.get("group") in groups:
        groups.remove(status["group"])
    if not groups:
        del context["supplementalGroups"]
    if not context and status.get("bare") is True:
        del spec["securityContext"]


def _keep(parent: Built, key: str, wanted: Any) -> None:
    if key in parent:
        parent[key] = [item for item in parent[key] if wanted(item)]
        if not parent[key]:
            del parent[key]


def _drop(parent: Built, key: str, unwanted: Any) -> None:
    if key in parent:
        parent[key] = {k: v for k, v in parent[key].items() if not unwanted(k)}
        if not parent[key]:
            del parent[key]


def _write_status(pod: Built, status: Mapping[str, Any]) -> None:
    text = json.dumps(status, sort_keys=True, separators=(",", ":"))
    pod.setdefault("metadata", {}).setdefault("annotations", {})[names.STATUS] = text
