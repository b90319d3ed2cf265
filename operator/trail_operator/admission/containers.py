"""The containers and volumes that TRAIL adds to a pod."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trail.wire import names as wire
from trail_operator import names
from trail_operator.access import sidecar_user, with_user
from trail_operator.admission.pods import VllmContainer
from trail_operator.admission.resources import copy_resources, sidecar_resources
from trail_operator.policy.resource import (
    ClaimPredictor,
    ConfigMapPredictor,
    ImagePredictor,
    TrailPolicy,
    UrlPredictor,
)
from trail_operator.settings import InjectionSettings

Built = dict[str, Any]

SHARED_MIB_PER_ENGINE = 512
"""The ring takes 64 MiB at hidden size 4096, in proportion at others; allocated at the start."""
_CONFIG_MAP_ITEMS = {
    "trail.json": "trail.json",
    "probe.safetensors": "probe.safetensors",
    "prompt.config.json": "prompt/config.json",
    "prompt.model.safetensors": "prompt/model.safetensors",
}
"""A key holds no slash; the artefact has one directory."""


@dataclass(frozen=True)
class Plan:
    """All that decides what a pod gets."""

    policy: TrailPolicy
    settings: InjectionSettings
    target: VllmContainer
    native: bool
    """Whether the sidecar is a native one (init container that stays)."""
    namespace: str
    workload: str
    """`namespace/kind/name`."""


def init_containers(plan: Plan, pod: Mapping[str, Any]) -> list[Built]:
    """Copies of plugin and predictor, and the sidecar where it is native. None of them can fail the pod.

    `pod` is as its author wrote it. They come after the pod's own: a network that an init container sets up
    is there then, and a model's download is not held up.
    """
    out = [
        _copy(
            plan,
            pod,
            names.ENGINE,
            image=plan.policy.engine_image or plan.settings.engine_image,
            source="/trail/engine",
            target=names.ENGINE_PATH,
            volume=names.VOLUME_ENGINE,
            into=names.ENGINE_DIR,
        )
    ]
    predictor = plan.policy.predictor
    if isinstance(predictor, ImagePredictor):
        out.append(
            _copy(
                plan,
                pod,
                names.PREDICTOR,
                image=predictor.image,
                source=predictor.path,
                target=names.PREDICTOR_PATH,
                volume=names.VOLUME_PREDICTOR,
                into=names.PREDICTOR_DIR,
            )
        )
    if plan.native:
        out.append({**sidecar(plan, pod), "restartPolicy": "Always"})
    return out


def sidecar(plan: Plan, pod: Mapping[str, Any]) -> Built:
    """The sidecar's container for `pod`, which is as its author wrote it.

    No probe: nothing of ours decides whether the pod is ready.
    """
    policy = plan.policy
    mounts = [_mount(names.VOLUME_RUN, names.RUN_DIR), _mount(names.VOLUME_TMP, "/tmp")]  # noqa: S108 - of our own container
    command = ["trail-supervisor"]
    if policy.predictor is not None:
        fetched = isinstance(policy.predictor, UrlPredictor)
        mounts.append(_mount(names.VOLUME_PREDICTOR, names.PREDICTOR_DIR, read_only=not fetched))
    if isinstance(policy.predictor, UrlPredictor):
        command += ["--fetch", policy.predictor.url, "--sha256", policy.predictor.sha256,
                    "--into", names.PREDICTOR_PATH]  # fmt: skip
    return {
        "name": names.SIDECAR,
        "image": policy.sidecar.image or plan.settings.sidecar_image,
        "imagePullPolicy": plan.settings.pull_policy,
        "command": [*command, "--", "trail", "sidecar"],
        "env": _sidecar_environment(plan),
        "ports": [{"name": names.PORT_NAME, "containerPort": policy.sidecar.metrics_port, "protocol": "TCP"}],
        "resources": _sidecar_resources(plan, pod),
        "securityContext": _security(plan.settings),
        "volumeMounts": mounts,
    }


def volumes(plan: Plan) -> list[Built]:
    """The volumes that our containers and vLLM's share."""
    shared = plan.policy.sidecar.shared_memory or f"{SHARED_MIB_PER_ENGINE * plan.target.engines}Mi"
    out: list[Built] = [
        {"name": names.VOLUME_RUN, "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
        {"name": names.VOLUME_ENGINE, "emptyDir": {"sizeLimit": "128Mi"}},
        {"name": names.VOLUME_TMP, "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    match plan.policy.predictor:
        case None:
            return out
        case ClaimPredictor(claim=claim):
            source: Built = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        case ConfigMapPredictor(name=name):
            # Optional: an absent config map costs the predictions and not the pod.
            items = [{"key": key, "path": path} for key, path in _CONFIG_MAP_ITEMS.items()]
            source = {"configMap": {"name": name, "optional": True, "items": items}}
        case ImagePredictor() | UrlPredictor():
            source = {"emptyDir": {"sizeLimit": "4Gi"}}
    return [*out, {"name": names.VOLUME_PREDICTOR, **source}]


def engine_environment(plan: Plan) -> dict[str, str]:
    """What vLLM's container gets, beside PYTHONPATH and the list of plugins."""
    out = {wire.ENV_ENABLED: "1", wire.ENV_DIR: names.RUN_DIR}
    if plan.policy.predictor is not None:
        out[wire.ENV_LAYERS] = str(plan.policy.layer)
        out[wire.ENV_EXPORT_EVERY] = str(plan.policy.every_steps)
    return out


def engine_defaults(plan: Plan) -> dict[str, str]:
    """What vLLM's container gets where it does not set the variable itself."""
    telemetry = plan.policy.telemetry
    if not telemetry.endpoint:
        return {}
    # vLLM hands a client's trace to its scheduler only where it traces by itself.
    return {wire.ENV_OTLP_ENDPOINT: telemetry.endpoint, wire.ENV_TRACE_RATIO: f"{telemetry.sample_ratio:g}"}


def engine_mounts() -> list[Built]:
    """What vLLM's container mounts."""
    return [
        _mount(names.VOLUME_RUN, names.RUN_DIR),
        _mount(names.VOLUME_ENGINE, names.ENGINE_DIR, read_only=True),
    ]


def predictor_path(plan: Plan) -> str:
    """Directory of the artefact in the sidecar, or '' without one."""
    match plan.policy.predictor:
        case None:
            return ""
        case ClaimPredictor(path=path):
            return f"{names.PREDICTOR_DIR}/{path}".rstrip("/")
        case ConfigMapPredictor():
            return names.PREDICTOR_DIR
        case ImagePredictor() | UrlPredictor():
            return names.PREDICTOR_PATH


def _sidecar_resources(plan: Plan, pod: Mapping[str, Any]) -> Built:
    stated = plan.policy.sidecar.resources
    if stated is None:
        return sidecar_resources(pod, pod["spec"]["containers"][plan.target.index])
    return {part: dict(values) for part, values in stated.items()}


def _sidecar_environment(plan: Plan) -> list[Built]:
    policy, settings = plan.policy, plan.settings
    out = [
        {"name": wire.ENV_DIR, "value": names.RUN_DIR},
        {"name": wire.ENV_POLICY, "value": policy.scheduling.text},
        {"name": wire.ENV_ENGINES, "value": str(plan.target.engines)},
        {"name": wire.ENV_THREADS, "value": str(policy.sidecar.threads)},
        {"name": "OMP_NUM_THREADS", "value": str(policy.sidecar.threads)},
        # Not 0.0.0.0, which a cluster of IPv6 alone does not have.
        _from_field(wire.ENV_METRICS_HOST, "status.podIP"),
        {"name": wire.ENV_METRICS_PORT, "value": str(policy.sidecar.metrics_port)},
        _from_field(wire.ENV_POD, "metadata.name"),
        _from_field(wire.ENV_POD_NAMESPACE, "metadata.namespace"),
        _from_field(wire.ENV_POD_UID, "metadata.uid"),
        {"name": wire.ENV_WORKLOAD, "value": plan.workload},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - of our own container
    ]
    if path := predictor_path(plan):
        out.append({"name": wire.ENV_PREDICTOR, "value": path})
    if policy.quality == "Watch":
        out.append({"name": wire.ENV_QUALITY, "value": "watch"})
    if mib := policy.telemetry.decision_log_mib:
        out += [
            {"name": wire.ENV_DECISION_LOG, "value": names.DECISION_LOG},
            {"name": wire.ENV_DECISION_LOG_MIB, "value": str(mib)},
        ]
    if settings.redis_secret:
        reference = {"name": settings.redis_secret, "key": "url", "optional": True}
        out.append({"name": wire.ENV_REDIS_URL, "valueFrom": {"secretKeyRef": reference}})
    elif settings.redis_url:
        url = settings.redis_url
        if settings.redis_key:
            url = with_user(url, settings.redis_key, sidecar_user(plan.workload))
        out.append({"name": wire.ENV_REDIS_URL, "value": url})
    if policy.telemetry.endpoint:
        out += [
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": policy.telemetry.endpoint},
            {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
            {"name": "OTEL_TRACES_SAMPLER_ARG", "value": f"{policy.telemetry.sample_ratio:g}"},
        ]
    return out


def _copy(
    plan: Plan, pod: Mapping[str, Any], name: str, *,
    image: str, source: str, target: str, volume: str, into: str,
) -> Built:  # fmt: skip
    """An init container that puts a directory of its image in place by rename. Whatever fails, it ends well:
    vLLM then finds no plugin, or the sidecar no predictor."""
    new = shlex.quote(f"{target}.new")
    old = shlex.quote(target)
    script = (
        f"rm -rf {new} {old}; cp -R {shlex.quote(source)} {new} && mv {new} {old} || rm -rf {new}; exit 0"
    )
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": plan.settings.pull_policy,
        "command": ["/bin/sh", "-c", script],
        "resources": copy_resources(pod),
        "securityContext": _security(plan.settings),
        "volumeMounts": [_mount(volume, into)],
    }


def _security(settings: InjectionSettings) -> Built:
    """As the Pod Security Standard `restricted` asks for."""
    user: Mapping[str, int] = {} if settings.user is None else {"runAsUser": settings.user}
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        **user,
        # The group of the files that vLLM's container opens; see inject.py.
        "runAsGroup": settings.group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _mount(volume: str, path: str, *, read_only: bool = False) -> Built:
    return {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _from_field(name: str, path: str) -> Built:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
