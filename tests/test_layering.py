"""Which way imports point, and the other rules of the house: read from the source, so that nothing has to be imported.

A rule that cannot be broken without this test failing needs no reviewer. Modules that do not exist yet are covered
when they come.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BACKEND = ROOT / "backend" / "dreamcraft3d"
EXTENSION = ROOT / "dreamcraft_blender"
OURS = "dreamcraft3d"


@dataclass(frozen=True)
class Import:
    """One import: by which module (dotted, below the package), of what, and whether inside a function."""

    by: str
    of: str
    inside: bool

    @property
    def layer(self) -> str:
        """First word of the imported module below our package; empty for other packages."""
        words = self.of.split(".")
        return words[1] if words[0] == OURS and len(words) > 1 else ""


def sources(package: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports_of(name: str, path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            within = inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from (Import(name, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level:
                # Blender gives the extension's package another name each time, so its own modules are relative there
                assert path.is_relative_to(EXTENSION), f"{path}: relative import"
                yield from (Import(name, f".{child.module or alias.name}", inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                # `from dreamcraft3d import export` imports the module dreamcraft3d.export
                whole = child.module == OURS
                for alias in child.names:
                    yield Import(name, f"{OURS}.{alias.name}" if whole else child.module, inside)
            yield from visit(child, within)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def all_imports(package: Path) -> list[Import]:
    return [found for name, path in sources(package) for found in imports_of(name, path)]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    found = all_imports(BACKEND)
    assert len(found) > 50
    return found


def layer(module: str) -> str:
    return module.partition(".")[0]


def breaches(
    imports: list[Import], layers: set[str], forbidden: set[str], allowed: set[str] | None = None
) -> list[str]:
    """Imports by `layers` of anything of ours that is forbidden (or not allowed)."""
    return [
        f"{found.by} imports {found.of}"
        for found in imports
        if layer(found.by) in layers
        and found.layer
        and found.layer != layer(found.by)
        and (found.layer in forbidden or (allowed is not None and found.layer not in allowed))
    ]


def test_functional_imports_itself_only(imports):
    assert not breaches(imports, {"functional"}, set(), allowed={"errors"})


def test_kernels_know_nothing_above_them(imports):
    above = {
        "fields",
        "priors",
        "stages",
        "rendering",
        "guidance",
        "pipeline",
        "export",
        "evaluation",
        "cli",
        "training",
    }
    assert not breaches(imports, {"kernels"}, above)


def test_priors_know_nothing_of_scenes(imports):
    """A network may need a kernel of its own (the bundled one renders its volume); what a scene is made of it must not
    know."""
    assert not breaches(imports, {"priors"}, {"fields", "rendering", "stages", "pipeline", "guidance"})
    used = {(item.by, item.of.removeprefix("dreamcraft3d.")) for item in imports if layer(item.by) == "priors"}
    assert {pair for pair in used if layer(pair[1]) == "kernels"} == {("priors.lifting", "kernels.frustum")}
    assert not breaches(imports, {"guidance"}, {"kernels", "fields", "rendering", "stages", "pipeline"})
    assert not breaches(imports, {"fields", "rendering"}, {"priors", "guidance", "stages", "pipeline"})


def test_stages_know_nothing_of_those_who_run_them(imports):
    assert not breaches(imports, {"stages"}, {"pipeline", "server", "cli", "terminal", "evaluation", "doctor"})
    assert not breaches(imports, {"pipeline"}, {"server", "cli", "terminal"})


def test_accelerators_are_imported_by_kernels_inside_functions(imports):
    special = {"warp", "tinycudann", "nerfacc"}
    found = [item for item in imports if layer(item.of) in special]
    assert not [f"{item.by} imports {item.of}" for item in found if layer(item.by) != "kernels"]
    assert not [f"{item.by} imports {item.of} at the top" for item in found if not item.inside]


def test_model_libraries_are_imported_by_priors_and_training(imports):
    special = {"diffusers", "transformers", "peft"}
    users = {layer(item.by) for item in imports if layer(item.of) in special}
    assert users <= {"priors", "training"}


def reachable(start: str, imports: list[Import]) -> set[str]:
    """Everything that importing a module loads, by top-level imports only."""
    modules = {item.by for item in imports}
    seen, todo = set(), [start]
    while todo:
        name = todo.pop()
        for item in imports:
            if item.by != name or item.inside or item.of in seen:
                continue
            seen.add(item.of)
            below = item.of.removeprefix(f"{OURS}.") if item.layer else ""
            parents = {below.rsplit(".", count)[0] for count in range(below.count(".") + 1)} if below else set()
            todo += [module for module in parents if module in modules]
    return seen


@pytest.mark.parametrize(
    "module", ["config", "presets", "errors", "progress", "workspace", "terminal", "cli", "cli.shell", "doctor", ""]
)
def test_the_ground_never_loads_torch(imports, module):
    heavy = {"torch", "jaxtyping", "warp", "diffusers", "numpy", "cv2", "trimesh", "bpy"}
    assert not {name for name in reachable(module, imports) if layer(name) in heavy}


def test_server_is_up_without_torch(imports):
    for module in {item.by for item in imports if layer(item.by) == "server" and "worker" not in item.by}:
        assert not {name for name in reachable(module, imports) if layer(name) in {"torch", "warp", "diffusers"}}


PLAIN = {"answers", "client", "glb", "installer", "jobs", "launcher", "link", "pixels", "problems", "schema"}
PLAIN |= {"submission", "batch_runs", "batch_view", "catalogs", "whole_file"}
"""Modules of the extension that work without Blender."""

IN_EVERY_BLENDER = {*sys.stdlib_module_names, "bpy", "bpy_extras", "mathutils", "numpy", ""}
THREADS = {"threading", "_thread", "concurrent", "multiprocessing", "asyncio", "queue"}


def test_extension_and_backend_never_meet():
    for found in all_imports(EXTENSION):
        assert layer(found.of) in IN_EVERY_BLENDER - THREADS, found
        if found.by in PLAIN:
            assert layer(found.of) not in {"bpy", "bpy_extras", "mathutils"}, found
            assert found.of.removeprefix(".") in PLAIN or not found.of.startswith("."), found
    for found in all_imports(BACKEND):
        assert layer(found.of) not in {"dreamcraft_blender", "bpy"}, found


def test_no_module_without_a_subject():
    vague = {"utils", "util", "misc", "helpers", "helper", "common", "manager"}
    for package in (BACKEND, EXTENSION):
        for name, _ in sources(package):
            assert not vague & set(name.split(".")), name


def test_cuda_is_named_in_two_places_only():
    for name, path in sources(BACKEND):
        if name in {"kernels.dispatch", "cli.upkeep"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value != "cuda", f"{path}:{node.lineno}"
                assert not node.value.startswith("cuda:"), f"{path}:{node.lineno}"


def test_only_the_command_line_prints():
    for name, path in sources(BACKEND):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} ({name})"


def test_every_module_says_what_it_is_for():
    for name, path in [*sources(BACKEND), *sources(EXTENSION)]:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name
