import hashlib
from pathlib import Path

from trail.simulation.code_digest import code_digest


def test_modules_of_packages_and_files_count_and_nothing_else(tmp_path: Path) -> None:
    package, file = tmp_path / "package", tmp_path / "one.py"
    (package / "below").mkdir(parents=True)
    (package / "b.py").write_bytes(b"second")
    (package / "a.py").write_bytes(b"first")
    (package / "figures.json").write_bytes(b"not code")
    (package / "below" / "c.py").write_bytes(b"another package")
    file.write_bytes(b"third")
    assert code_digest(package, file) == hashlib.sha256(b"firstsecondthird").hexdigest()
    assert code_digest(file, package) != code_digest(package, file)
