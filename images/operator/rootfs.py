"""The operator's root file system: Python, a virtual environment, and the libraries that both load.

`python rootfs.py VENV DIRECTORY`, run by the Python that VENV is of. No shell, no package manager, nothing
else of the base: smaller, and less to patch. What dpkg says of the packages that files came from is kept, so
that scanners see them, and so are their licences.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

UNUSED = ("site-packages", "test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data",
          "config-*", "__pycache__", "_tkinter.*", "nis.*")  # fmt: skip
LOADED_LATER = ("libgcc_s.so.1",)
"""glibc opens it when a thread is cancelled."""
KEPT = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/os-release", "/usr/lib/os-release",
        "/etc/debian_version", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/usr/lib/ssl",
        "/usr/share/ca-certificates")  # fmt: skip
"""Names, certificates, and what says which Debian it is."""
LINKED = re.compile(r"(?:=>\s*|^\s*)(/\S+) \(0x")


def is_elf(path: Path) -> bool:
    """Whether a file is a program or a library."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(trees: list[Path]) -> set[Path]:
    """What the programs and libraries under `trees` load, as the loader names it."""
    files = [path for tree in trees for path in tree.rglob("*") if is_elf(path)]
    said = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    if absent := sorted({line.strip() for line in said.splitlines() if "not found" in line}):
        raise SystemExit(f"the base lacks libraries: {'; '.join(absent)}")
    found = {Path(path) for line in said.splitlines() for path in LINKED.findall(line)}
    return found | {
        path.parent / name for path in found for name in LOADED_LATER if (path.parent / name).exists()
    }


def place(path: Path, root: Path) -> Path:
    """Where a path lies under `root`, by the real name of its folder; the folder and links to it are made."""
    for parent in path.parents[:-1]:
        if parent.is_symlink() and not (link := place(parent, root)).is_symlink():
            link.symlink_to(parent.readlink())
    folder = root / path.parent.resolve().relative_to("/")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / path.name


def copy(path: Path, root: Path) -> None:
    """A file, link or folder to the same place under `root`, with what links point to."""
    there = place(path, root)
    if path.is_symlink():
        if not there.is_symlink():
            there.symlink_to(path.readlink())
            if path.exists():
                copy(path.resolve(), root)
    elif path.is_dir():
        there.mkdir(exist_ok=True)
        for child in path.iterdir():
            copy(child, root)
    elif not there.exists():
        shutil.copy2(path, there)


def copy_python(root: Path) -> Path:
    """The interpreter and its library; where they lie under `root`."""
    prefix, library = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, place(library, root), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    names = ("python", "python3", f"python3.{sys.version_info.minor}")
    for path in [prefix / "bin" / name for name in names] + list((prefix / "lib").glob("libpython*.so*")):
        if path.is_symlink() or path.exists():
            copy(path, root)
    return root / prefix.relative_to("/")


def packages(root: Path) -> Iterator[str]:
    """What dpkg says of each package that some file under `root` came from."""
    files = [f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir()]
    # dpkg knows /lib/x by the name that the package gives it, and a merged /usr calls it /usr/lib/x.
    names = files + [name.removeprefix("/usr") for name in files if name.startswith("/usr/lib")]
    said = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, check=False).stdout
    owners = {line.split(":")[0] for line in said.splitlines() if not line.startswith("diversion ")}
    for stanza in Path("/var/lib/dpkg/status").read_text().split("\n\n"):
        name = stanza.strip().partition("\n")[0].removeprefix("Package: ")
        if name in owners:
            licence = Path("/usr/share/doc") / name / "copyright"
            if licence.exists():
                copy(licence, root)
            yield stanza.strip()


def main() -> int:
    """0, or an error of what could not be copied."""
    venv, root = Path(sys.argv[1]), Path(sys.argv[2])
    root.mkdir(parents=True)
    copy(venv, root)
    python = copy_python(root)
    for path in sorted(libraries([python, root / venv.relative_to("/")])):
        copy(path, root)
    for name in KEPT:
        if Path(name).is_symlink() or Path(name).exists():
            copy(Path(name), root)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (known := root / "var/lib/dpkg/status").parent.mkdir(parents=True)
    known.write_text("\n\n".join(packages(root)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
