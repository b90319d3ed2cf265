"""What a pod is: whose, which container is vLLM's, and whether TRAIL can be injected at all."""

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trail.wire import names as wire
from trail_operator import names
from trail_operator.reasons import Reason, Skip

Object = Mapping[str, Any]

_MODULE = re.compile(r"vllm(\.entrypoints(\.[\w.]+)?)?")
_IMAGE = re.compile(r"(vllm|huggingfaceserver)([-_.]|$)|[-_]vllm([-_]|$)")
_NOT_AN_ENGINE = re.compile(r"router|gateway|proxy|exporter|benchmark|client|operator")
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh"})
_PYTHON = re.compile(r"python[0-9.]*")
_SETS_PATH = re.compile(r"\bPYTHONPATH=(?P<value>[^;&|\n]*)")
_KEEPS_PATH = re.compile(r"\$\{?PYTHONPATH\b")
_DATA_PARALLEL = ("--data-parallel-size", "-dp")
_MOST_ENGINES = 64


@dataclass(frozen=True)
class VllmContainer:
    """Where TRAIL goes: the container's place in `spec.containers`, its name, and its engine cores."""

    index: int
    name: str
    engines: int


def examine(pod: Object, *, metrics_port: int) -> VllmContainer | Skip:
    """vLLM's container in a pod or pod template, or the reason to leave it as it is. Reads only."""
    spec = _mapping(pod.get("spec"))
    for refuse in (_windows, _host_network, _runs_to_completion):
        if skip := refuse(pod, spec):
            return skip
    container = find_container(pod)
    if isinstance(container, Skip):
        return container
    index, vllm = container
    refusals = (
        _names(spec),
        _paths(vllm),
        _port(spec, metrics_port),
        _python_path(pod, vllm),
        _environment(vllm),
    )
    if skip := next(filter(None, refusals), None):
        return skip
    return VllmContainer(index, str(vllm.get("name", "")), _engines(vllm))


def find_container(pod: Object) -> tuple[int, Object] | Skip:
    """vLLM's container with its place: the annotated one, else by command, else by image."""
    containers = [_mapping(c) for c in _items(_mapping(pod.get("spec")).get("containers"))]
    wanted = annotations(pod).get(names.CONTAINER)
    if wanted is not None:
        for index, container in enumerate(containers):
            if container.get("name") == wanted:
                return index, container
        known = ", ".join(str(c.get("name")) for c in containers)
        return Skip(
            Reason.CONTAINER_NOT_FOUND,
            f"{names.CONTAINER} names {wanted!r}; the pod has {known or 'no container'}",
        )
    for found in (_by_command, _by_image):
        matches = [(i, c) for i, c in enumerate(containers) if found(c)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            several = ", ".join(str(c.get("name")) for _, c in matches)
            return Skip(
                Reason.SEVERAL_VLLM_CONTAINERS,
                f"{several} look like vLLM; say which one it is with the annotation {names.CONTAINER}",
            )
    return Skip(
        Reason.NO_VLLM_CONTAINER,
        f"no container runs vLLM as far as can be seen; name it with the annotation {names.CONTAINER}",
    )


def annotations(obj: Object) -> dict[str, str]:
    """Annotations of an object; those that are no texts are left out."""
    return _texts(_mapping(obj.get("metadata")).get("annotations"))


def labels(obj: Object) -> dict[str, str]:
    """Labels of an object; those that are no texts are left out."""
    return _texts(_mapping(obj.get("metadata")).get("labels"))


def owner(obj: Object) -> Object | None:
    """The reference to the controller that owns an object."""
    for reference in _items(_mapping(obj.get("metadata")).get("ownerReferences")):
        if isinstance(reference, Mapping) and reference.get("controller") is True:
            return reference
    return None


def workload_of(pod: Object, namespace: str) -> str:
    """`namespace/kind/name` of what a pod belongs to: its Deployment, not its ReplicaSet; else itself."""
    controller = owner(pod)
    if controller is None:
        metadata = _mapping(pod.get("metadata"))
        name = str(metadata.get("name") or str(metadata.get("generateName") or "unnamed").rstrip("-"))
        return f"{namespace}/pod/{name}"
    kind, name = str(controller.get("kind", "")), str(controller.get("name", ""))
    template_hash = labels(pod).get("pod-template-hash", "")
    if kind == "ReplicaSet" and template_hash and name.endswith(f"-{template_hash}"):
        kind, name = "Deployment", name[: -len(template_hash) - 1]
    return f"{namespace}/{kind.lower()}/{name}"


def words(container: Object) -> list[str]:
    """Command and arguments in single words; a script for `sh -c` is taken apart as the shell would."""
    parts = [str(x) for x in (*_items(container.get("command")), *_items(container.get("args")))]
    out: list[str] = []
    for part in parts:
        if not re.search(r"\s", part):
            out.append(part)
            continue
        try:
            out += shlex.split(part.replace("\\\n", " "), comments=False)
        except ValueError:  # an unbalanced quote: good enough to look for words
            out += part.split()
    return out


def environment(container: Object) -> dict[str, Object]:
    """Environment entries by name; the last of a name counts, as for Kubernetes."""
    entries = (e for e in _items(container.get("env")) if isinstance(e, Mapping))
    return {str(e.get("name", "")): e for e in entries}


def _by_command(container: Object) -> bool:
    found = words(container)
    pairs = itertools.pairwise(found)
    return any(
        (first == "-m" and _MODULE.fullmatch(second))
        or (first.rsplit("/", 1)[-1] == "vllm" and second == "serve")
        for first, second in pairs
    )


def _by_image(container: Object) -> bool:
    image = str(container.get("image") or "")
    repository = image.split("@", 1)[0]
    last = repository.rsplit("/", 1)[-1].split(":", 1)[0].lower()
    return bool(_IMAGE.search(last)) and not _NOT_AN_ENGINE.search(last)


def _windows(_pod: Object, spec: Object) -> Skip | None:
    system = _mapping(spec.get("os")).get("name") or _mapping(spec.get("nodeSelector")).get(
        "kubernetes.io/os"
    )
    if str(system or "").lower() == "windows":
        return Skip(Reason.WINDOWS, "the pod is for Windows nodes; TRAIL runs on Linux")
    return None


def _host_network(_pod: Object, spec: Object) -> Skip | None:
    if spec.get("hostNetwork") is True:
        return Skip(
            Reason.HOST_NETWORK,
            "the pod uses the host's network, where the sidecar's port may be taken; remove hostNetwork",
        )
    return None


def _runs_to_completion(pod: Object, spec: Object) -> Skip | None:
    controller = owner(pod)
    job = controller is not None and controller.get("kind") == "Job"
    if job or spec.get("restartPolicy", "Always") != "Always":
        return Skip(
            Reason.RUNS_TO_COMPLETION,
            "the pod is meant to end (a Job, or restartPolicy is not Always); a sidecar might prevent that",
        )
    return None


def _python_path(pod: Object, container: Object) -> Skip | None:
    entry = environment(container).get("PYTHONPATH")
    if entry is not None and "valueFrom" in entry:
        why = "PYTHONPATH comes from valueFrom; give its value in the pod"
    elif _isolated(container):
        why = "the command starts Python with -E or -I, which ignore PYTHONPATH; leave that option out"
    elif any(not _KEEPS_PATH.search(m["value"]) for w in _scripts(container) for m in _SETS_PATH.finditer(w)):
        why = "the command sets PYTHONPATH anew; write PYTHONPATH=...:$PYTHONPATH"
    elif entry is not None and names.PYTHON_PATH in annotations(pod):
        why = f"PYTHONPATH is set and the annotation {names.PYTHON_PATH}, too; one of them would be lost"
    else:
        why = ""
    return Skip(Reason.PYTHON_PATH, why) if why else None


def _isolated(container: Object) -> bool:
    found = words(container)
    for word, after in itertools.pairwise(found):
        if _PYTHON.fullmatch(word.rsplit("/", 1)[-1]) and re.fullmatch(r"-[a-zA-Z]*[EI][a-zA-Z]*", after):
            return True
    return False


def _scripts(container: Object) -> list[str]:
    parts = [str(x) for x in (*_items(container.get("command")), *_items(container.get("args")))]
    shell = bool(parts) and parts[0].rsplit("/", 1)[-1] in _SHELLS
    return parts if shell else [p for p in parts if p.startswith("PYTHONPATH=")]


def _environment(container: Object) -> Skip | None:
    env = environment(container)
    if "valueFrom" in env.get(wire.ENV_VLLM_PLUGINS, {}):
        said = f"{wire.ENV_VLLM_PLUGINS} comes from valueFrom; give its value in the pod"
        return Skip(Reason.PLUGINS, said)
    taken = sorted(set(env) & OUR_ENVIRONMENT)
    if taken:
        return Skip(
            Reason.ENVIRONMENT_TAKEN,
            f"the container sets {', '.join(taken)} itself; remove that, or set {names.INJECT} to disabled",
        )
    return None


OUR_ENVIRONMENT = frozenset({wire.ENV_ENABLED, wire.ENV_DIR, wire.ENV_LAYERS, wire.ENV_EXPORT_EVERY})
"""What injection adds to vLLM's environment, beside PYTHONPATH and VLLM_PLUGINS."""


def _names(spec: Object) -> Skip | None:
    containers = (*_items(spec.get("containers")), *_items(spec.get("initContainers")))
    taken = {_mapping(c).get("name") for c in containers} & set(names.CONTAINERS)
    taken |= {_mapping(v).get("name") for v in _items(spec.get("volumes"))} & set(names.VOLUMES)
    if taken:
        return Skip(
            Reason.NAME_TAKEN,
            f"the pod has {', '.join(sorted(map(str, taken)))} of its own; rename that container or volume",
        )
    return None


def _paths(container: Object) -> Skip | None:
    for mount in _items(container.get("volumeMounts")):
        path = str(_mapping(mount).get("mountPath", "")).rstrip("/")
        if path in (names.RUN_DIR, names.ENGINE_DIR):
            return Skip(
                Reason.PATH_TAKEN, f"the container mounts a volume of its own at {path}; mount it elsewhere"
            )
    return None


def _port(spec: Object, metrics_port: int) -> Skip | None:
    containers = (*_items(spec.get("containers")), *_items(spec.get("initContainers")))
    ports = [_mapping(p) for c in containers for p in _items(_mapping(c).get("ports"))]
    if any(p.get("containerPort") == metrics_port or p.get("name") == names.PORT_NAME for p in ports):
        return Skip(
            Reason.PORT_TAKEN,
            f"a container of the pod has port {metrics_port} or a port called {names.PORT_NAME};"
            " set spec.sidecar.metricsPort in the policy",
        )
    return None


def _engines(container: Object) -> int:
    """Engine cores: vLLM's data-parallel size as far as the command tells, else 1."""
    found = words(container)
    for word, after in zip(found, [*found[1:], ""], strict=False):
        for option in _DATA_PARALLEL:
            value = (
                after if word == option else word[len(option) + 1 :] if word.startswith(f"{option}=") else ""
            )
            if value.isascii() and value.isdigit():
                return min(max(int(value[:6]), 1), _MOST_ENGINES)
    return 1


def _mapping(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _texts(value: Any) -> dict[str, str]:
    pairs: Iterable[tuple[Any, Any]] = _mapping(value).items()
    return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, str)}
