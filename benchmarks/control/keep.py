"""What simulations found, kept in files, so that an interrupted comparison goes on where it stopped."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import trail.bench.arrivals
import trail.policy
import trail.policy.controller
import trail.sidecar.redis.step_cost
import trail.simulation.engine
from benchmarks.control.regret import CONSTANT, Outcome
from benchmarks.control.settings import AZURE, Setting, azure_file
from trail.predict.storage import sha256_file
from trail.simulation.code_digest import code_digest
from trail.wire.files import write_json

_HERE = Path(__file__).parent
_CONTROLLER = Path(trail.policy.controller.__file__)


class Kept:
    """Outcomes in `directory`, under names made of all that they depend on, the code among it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def read(self, setting: Setting, requests: int, seed: int, part: str) -> dict[str, Outcome] | None:
        """The outcomes of one part of a seed, None where they have not been found out."""
        try:
            content = json.loads(self._file(setting, requests, seed, part).read_text(encoding="utf-8"))
            return {name: Outcome(**values) for name, values in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(
        self, setting: Setting, requests: int, seed: int, part: str, outcomes: dict[str, Outcome]
    ) -> None:
        """Keeps them. Raises OSError."""
        content = {name: asdict(outcome) for name, outcome in outcomes.items()}
        write_json(self._file(setting, requests, seed, part), content)

    def _file(self, setting: Setting, requests: int, seed: int, part: str) -> Path:
        trace = sha256_file(azure_file()) if setting.shape == AZURE else ""
        text = f"{setting!r} {requests} {seed} {part} {trace} {_code(part)}"
        return self._directory / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _code(part: str) -> str:
    """Of all that a part runs; a constant c does not ask the controller."""
    packages = (*trail.simulation.__path__, *trail.simulation.engine.__path__, *trail.policy.__path__)
    files = {file for package in packages for file in Path(package).glob("*.py")}
    files |= {_HERE / "settings.py", _HERE / "regret.py"}
    files.add(Path(trail.bench.arrivals.__file__))
    if part == CONSTANT:
        files.discard(_CONTROLLER)
    else:
        files |= {_HERE / "order.py", Path(trail.sidecar.redis.step_cost.__file__)}
    return code_digest(*sorted(files))
