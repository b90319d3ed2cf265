"""Writes the expected pods anew: `python tests/operator/write_golden.py`. Read the diff."""

import yaml
from operator_kit import GOLDEN, admit, golden_view, load_documents

VARIANTS = {"injected": True, "injected-old": False}
"""File by whether the cluster has native sidecars."""


def expected(case: str, *, native: bool) -> str:
    """The YAML of a case's pod after the webhook."""
    (pod,) = load_documents(GOLDEN / f"{case}.pod.yaml")
    return yaml.safe_dump(admit(pod, golden_view(native=native)), sort_keys=False, width=110)


def cases() -> list[str]:
    """Names of all cases."""
    return sorted(path.name.removesuffix(".pod.yaml") for path in GOLDEN.glob("*.pod.yaml"))


if __name__ == "__main__":
    for case in cases():
        for variant, native in VARIANTS.items():
            (GOLDEN / f"{case}.{variant}.yaml").write_text(expected(case, native=native))
