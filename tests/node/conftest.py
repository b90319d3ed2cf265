"""One node for the whole story; logs of every container where something fails."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_kit import BUILD, Node, need_program

_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node with our images, started here and ended here."""
    shared = os.environ.get("TRAIL_SHARED", "")
    if os.environ.get("TRAIL_E2E_NODE") != "1":
        pytest.skip("on a real node: run `make e2e-node`")
    if not (Path(shared) / "tools/node").exists():
        pytest.skip("on a real node: TRAIL_SHARED names no folder with tools/node")
    if os.geteuid() != 0:
        pytest.skip("on a real node: a node needs root")
    node = Node(Path(shared) / "tools")
    began_s = time.monotonic()
    need_program("kubectl", "kubernetes-client")
    try:
        node.start()
        print(f"the node runs after {time.monotonic() - began_s:.0f} s", flush=True)
        node.load_images(*os.environ.get("TRAIL_NODE_ROLES", "").split())
        print(f"its images are there after {time.monotonic() - began_s:.0f} s", flush=True)
        yield node
    finally:
        if os.environ.get("TRAIL_NODE_KEEP") != "1":
            node.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keeps what every container said when a step of the story fails."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and isinstance(node, Node) and not item.session.stash.get(_failed, False):
        item.session.stash[_failed] = True
        folder = BUILD / "failed"
        node.keep_logs(folder)
        print(f"logs of every container: {folder}")


@pytest.fixture(autouse=True)
def _story(request: pytest.FixtureRequest) -> None:
    """A step makes no sense after one that failed."""
    if request.session.stash.get(_failed, False):
        pytest.skip("an earlier step of the story failed")
