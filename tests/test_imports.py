"""The house's rules: which package may import which, and what must start without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("app", "benchmarks", "db", "exports", "generation", "ospcoop", "review")
ALLOWED = {
    "db": {"db"},
    "review": {"db", "review"},
    "exports": {"db", "exports"},
    "ospcoop": {"db", "ospcoop"},
    "generation": {"db", "generation", "ospcoop.clip"},
    "app": {"app", "db", "exports", "generation", "ospcoop", "review"},
}


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in _imported(path):
            if name.split(".")[0] in PACKAGES:
                if path.is_relative_to(ROOT / "ospcoop" / "conformance") and name.startswith("generation."):
                    continue  # docs/decisions/0004
                allowed = any(name == a or name.startswith(f"{a}.") for a in ALLOWED[package])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"
            if package != "app":
                assert name.split(".")[0] != "gradio", f"{path.relative_to(ROOT)} imports gradio"


@pytest.mark.parametrize(
    "statement",
    [
        "import app.cli",
        "import app.server",
        "import app.worker",
        "import db.workspace",
        "import exports.builds, exports.incoming, exports.publishing, exports.registry",
        "import review.adjudication, review.agreement, review.decisions, review.gold, review.leases, review.queue",
        "import generation.classes, generation.imported, generation.recipe, generation.registry, generation.sources",
        "import ospcoop.data, ospcoop.options, ospcoop.runs",
        "import ospcoop.figures.drawn, ospcoop.figures.request, ospcoop.figures.stored",
        "import ospcoop.evaluation.by_class, ospcoop.evaluation.formats, ospcoop.evaluation.guard",
    ],
)
def test_starts_without_torch(statement):
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_help_needs_neither_torch_nor_gradio():
    code = (
        "import sys\nsys.argv = ['launch.py', '--help']\nfrom app.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'gradio', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("demo", "import", "generate", "status", "worker", "build", "export", "doctor", "users"):
        assert command in done.stdout
