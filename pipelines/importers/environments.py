"""The `.env` of atd-mds: which bucket holds its configuration, and under which names; its files are then read as if they had been named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.importers.plan import Problem

BUCKET, RUN_MODE, FERNET_KEY = "ATD_MDS_BUCKET", "ATD_MDS_RUN_MODE", "ATD_MDS_FERNET_KEY"
#: Which variable names a file of areas.
AREAS = ("ATD_MDS_DISTRICTS_GEOJSON", "ATD_MDS_CENSUS_GEOJSON", "ATD_MDS_HEX_GEOJSON")
_OURS = re.compile(r"^(?:export[ \t]+)?ATD_MDS_[A-Z_]+[ \t]*=", re.MULTILINE)
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


@dataclass(frozen=True)
class Named:
    """The files that a `.env` leads to, and the variables by which they are opened."""

    files: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)  # keys are among them
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def is_one(text: str) -> bool:
    """Whether a variable of atd-mds begins a line."""
    return bool(_OURS.search(text))


def read(path: str, text: str) -> Named:
    """Where its configuration lies. Nothing is raised, and no value of a variable but an address is told."""
    variables, lines = {}, {}
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _LINE.fullmatch(line.strip()):
            variables[found[1]], lines[found[1]] = _unquoted(found[2]), number
    # the older spelling of the two keys, as its own messages have it
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        older = f"ATD_MDS_{name.removesuffix('_ID')}"
        if older in variables:
            variables.setdefault(f"AWS_{name}", variables[older])
    if not variables.get(BUCKET):
        problem = Problem(
            path, lines.get(BUCKET, 0), BUCKET, "It does not name the bucket in which the configuration lies.",
            f"Write {BUCKET}=name-of-the-bucket, or name the files themselves: providers_production.json settings_production.json",
        )  # fmt: skip
        return Named(problems=(problem,))
    stage = (variables.get(RUN_MODE) or "STAGING").lower()
    files = [
        f"s3://{variables[BUCKET]}/{variables.get(f'ATD_MDS_{what.upper()}') or f'config/{what}_{stage}.json'}" for what in ("providers", "settings")
    ]
    files += [str(area) for name in AREAS if (area := Path(path).parent / variables.get(name, "")).is_file()]
    return Named(tuple(files), variables, notes=(f"{path} leads to {', '.join(files)}.",))


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.split(r"\s+#", value)[0]
