"""One installation for the whole story."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import helm_python
import pytest
from e2e_kit import NAMESPACE, RELEASE, USERS, Cluster, Processes, account_kubeconfig, free_port, redis_secret
from redis import Redis

from trail_operator.cluster_api.kube import path

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trailpolicies.trail.dev"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster in KUBECONFIG, empty of ours before and after."""
    if os.environ.get("TRAIL_E2E") != "1":
        pytest.skip("end to end: run `make e2e`, which uses the cluster in KUBECONFIG")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("end to end: KUBECONFIG is not set, so there is no cluster to use")
    cluster = Cluster()
    if cluster.get(CRD) is not None:
        cluster.close()
        pytest.skip("end to end: the cluster has TrailPolicies already; use another one")
    yield cluster
    for namespace in (USERS, NAMESPACE):
        cluster.delete(path("v1", "namespaces", None, namespace))
    cluster.delete(CRD)
    cluster.close()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For logs, certificates and kubeconfigs."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def processes(cluster: Cluster, directory: Path) -> Iterator[Processes]:
    """Our processes."""
    processes = Processes(directory)
    yield processes
    processes.end_all()


@pytest.fixture(scope="session")
def port() -> int:
    """Of the webhook."""
    return free_port()


@pytest.fixture(scope="session")
def redis_port() -> int:
    """Of the Redis that the operator uses."""
    return free_port()


@pytest.fixture
def redis(cluster: Cluster, redis_port: int) -> Iterator["Redis[bytes]"]:
    """Redis, as the operator sees it."""
    with Redis.from_url(redis_secret(cluster).operator_url(redis_port)) as client:
        yield client


@pytest.fixture(scope="session")
def helm(cluster: Cluster) -> Iterator[helm_python.Config]:
    """Real Helm; removes what is left of the releases at the end."""
    config = helm_python.Config(namespace=NAMESPACE)
    yield config
    for release in (RELEASE, f"{RELEASE}-crds"):
        with contextlib.suppress(helm_python.HelmError):
            config.uninstall(release, ignore_not_found=True)
    config.close()


@pytest.fixture(scope="session")
def account(cluster: Cluster, directory: Path) -> Path:
    """Kubeconfig of the operator's service account."""
    return account_kubeconfig(cluster, f"{RELEASE}-operator", directory / "operator.kubeconfig")
