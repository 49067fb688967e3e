"""What the compiler does not check: versions in the lock file, and where unsafe code is."""

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

# One family, one version: two of them do not take each other's arrays, or runtimes.
FAMILIES = re.compile(r"arrow|arrow-.*|parquet|tokio")

# docs/design.md: bytes of the file become memory here, and nowhere else.
MAY_BE_UNSAFE = {
    Path("shared/src") / name for name in ("mapping.rs", "futex.rs", "in_use.rs", "batch.rs", "arrays.rs")
}
# Programs of their own, not built with Sherwood: they measure others.
NOT_OURS = Path("benches/peers")


def versions():
    """Yields a complaint for each package of a family that is there twice."""
    found = defaultdict(set)
    lock = tomllib.loads(Path("Cargo.lock").read_text())
    for package in lock["package"]:
        if FAMILIES.fullmatch(package["name"]):
            found[package["name"]].add(package["version"])
    for name, several in sorted(found.items()):
        if len(several) > 1:
            yield f"Cargo.lock: {name} in {len(several)} versions: {', '.join(sorted(several))}"
    arrows = {v for name, all_of in found.items() if name != "tokio" for v in all_of}
    if len(arrows) > 1:
        yield f"Cargo.lock: arrow and parquet differ: {', '.join(sorted(arrows))}"


def unsafe():
    """Yields a complaint for each unsafe outside its place, and each crate that does not forbid it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.rs"],
        capture_output=True, check=True, text=True,
    )
    for path in sorted(map(Path, listed.stdout.split("\n")[:-1])):
        if NOT_OURS in path.parents or path in MAY_BE_UNSAFE or not path.exists():
            continue
        text = path.read_text()
        # A test may have to do what Rust cannot vouch for, such as fork. It says so at the top, and
        # the compiler then wants a reason at each place.
        if path.parts[0] == "tests" and "#![deny(unsafe_code)]" in text:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            code = line.split("//")[0]
            if re.search(r"\bunsafe\b", code):
                yield f"{path}:{number}: unsafe code belongs in sherwood-shared"
    roots = [root for folder in Path(".").glob("*/src")
             for root in (folder / "lib.rs", folder / "main.rs") if root.exists()]
    for root in sorted(roots):
        if root.parts[0] != "shared" and "#![forbid(unsafe_code)]" not in root.read_text():
            yield f"{root}: does not forbid unsafe code"


complaints = [*versions(), *unsafe()]
for complaint in complaints:
    print(complaint)
sys.exit(1 if complaints else 0)
