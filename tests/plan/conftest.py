"""Property tests here judge values, never how long a busy machine took. The report tests' browser."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

# A conftest has no package to import it from; this one also turns the clock of property tests off.
_spec = spec_from_file_location("lab_conftest", Path(__file__).parent.parent / "lab" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_lab = module_from_spec(_spec)
_spec.loader.exec_module(_lab)
quiet_page = _lab.quiet_page
