"""The versions that pyproject.toml allows: `python tests/versions.py` writes "name==floor" for all of them.

`make test-oldest` gives these lines to pip as constraints. Needs nothing but Python, so that it runs before
anything is installed.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared() -> dict[str, dict[str, str]]:
    """Direct dependencies as {extra: {name: floor}}; the extra "" is what the package itself needs.

    Raises ValueError for a requirement that is not "name>=version": one without a floor cannot be tested,
    and one with a marker or a ceiling would be tested as something else.
    """
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {extra: dict(map(read_floor, requirements)) for extra, requirements in groups.items()}


def read_floor(requirement: str) -> tuple[str, str]:
    """"numpy>=1.26" -> ("numpy", "1.26"). Raises ValueError as `declared`."""
    if not (found := re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)):
        raise ValueError(f"pyproject.toml requires {requirement!r}, expected 'name>=version'")
    return found[1], found[2]


if __name__ == "__main__":
    for group in declared().values():
        for name, floor in group.items():
            print(f"{name}=={floor}")
