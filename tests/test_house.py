"""What keeps the house in order, read off the tree: names, doors, and what nobody may write."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APPS = ("catalog", "opendata_ops", "perfmet", "pipelines")
TOP = {
    *APPS, "static", "templates", "tests", ".ci",
    "manage.py", "requirements.txt", "requirements-dev.txt", "pyproject.toml", ".pre-commit-config.yaml", ".env.example", ".gitignore",
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Dockerfile",
}  # fmt: skip
#: Templates that no app owns alone: the shell, and pages that Django looks for under names of its own.
SHARED_TEMPLATES = {"admin", "registration"}

SOURCES = sorted(path for app in APPS for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts)
COMMANDS = sorted(path for path in SOURCES if path.parent.name == "commands" and path.stem != "__init__")
TEMPLATES = sorted(path for folder in (ROOT / "templates", *(ROOT / app for app in APPS)) for path in folder.rglob("*.html"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def found(path: Path, is_wrong) -> list[str]:
    """Where in a file something stands that should not: "file:line"."""
    return [f"{short(path)}:{node.lineno}" for node in ast.walk(tree(path)) if is_wrong(node)]


def called(node: ast.AST) -> str:
    """The dotted name of what a node calls, "" if it calls nothing that has one."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) else ""


def test_the_guards_look_at_something():
    assert len(SOURCES) > 20 and COMMANDS and TEMPLATES


def test_the_top_of_the_tree_holds_only_what_belongs_there():
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    ignored += [".git", ".hypothesis"]  # the second one ignores itself
    there = {path.name for path in ROOT.iterdir() if not any(fnmatch(path.name, pattern) for pattern in ignored)}
    assert there <= TOP


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_every_command_has_a_test(command):
    if [*(ROOT / "tests").rglob(f"test_{command.stem}.py")]:
        return
    named = re.compile(rf"""["']{command.stem}["']""")
    assert any(named.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)), f"no test calls {command.stem}"


def is_wide_catch(node: ast.AST) -> bool:
    """`except:` or `except BaseException`: it eats time-outs and cancels."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(one is None or ast.unparse(one) in ("BaseException", "builtins.BaseException", "SystemExit") for one in caught)


@pytest.mark.parametrize("path", [path for path in SOURCES if short(path) != "pipelines/runner.py"], ids=short)
def test_only_the_runner_catches_everything(path):
    assert found(path, is_wide_catch) == []


def runs_text(node: ast.AST) -> bool:
    """Something that turns text or stored bytes into code, or a line into a shell."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        return any(name.split(".")[0] in ("pickle", "marshal", "shelve", "dill") for name in names)
    if isinstance(node, ast.keyword):
        return node.arg == "shell" and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    dangerous = ("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load")
    return called(node) in dangerous


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_nothing_turns_text_into_code(path):
    assert found(path, runs_text) == []


def may_print(path: Path) -> bool:
    return path in COMMANDS or path.name == "bootstrap.py" or "sandbox" in path.parts


@pytest.mark.parametrize("path", [path for path in SOURCES if not may_print(path)], ids=short)
def test_only_commands_print(path):
    assert found(path, lambda node: called(node) == "print") == []


@pytest.mark.parametrize("path", TEMPLATES, ids=short)
def test_a_template_needs_no_exception_from_the_content_security_policy(path):
    text = re.sub(r"{%\s*comment.*?endcomment\s*%}|{#.*?#}", "", path.read_text(), flags=re.S)
    assert not re.findall(r"<[^>]*\sstyle\s*=", text), "an inline style"
    assert not re.findall(r"<style\b", text), "an inline style sheet"
    assert not re.findall(r"<[^>]*\s(?:on[a-z]+|hx-on[:\w-]*)\s*=", text), "a handler in an attribute"
    assert not re.findall(r"javascript:", text, flags=re.I), "a javascript: address"
    for attributes in re.findall(r"<script\b([^>]*)>", text):
        assert re.search(r"\ssrc\s*=", attributes) or re.search(r"""type\s*=\s*["']application/json["']""", attributes), "an inline script"


def test_every_folder_of_templates_belongs_to_an_app():
    folders = {path.name for path in (ROOT / "templates").iterdir() if path.is_dir()}
    assert folders <= {*APPS, *SHARED_TEMPLATES}
    for app in APPS:
        inside = ROOT / app / "templates"
        assert {path.name for path in inside.glob("*")} <= {app}


def test_the_imports_keep_to_the_corridor():
    # in a process of its own: it sets up logging anew, and switches off every logger that there was
    asked = (
        f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports(config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    )
    told = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


# the guards themselves: each sees what it is there for


@pytest.mark.parametrize(
    "code", ["try: x\nexcept: y", "try: x\nexcept BaseException: y", "try: x\nexcept (OSError, BaseException): y", "try: x\nexcept SystemExit: y"]
)
def test_a_wide_catch_is_seen(code):
    assert any(map(is_wide_catch, ast.walk(ast.parse(code))))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "os.system('ls')",
        "eval('1')",
        "subprocess.run('ls', shell=True)",
        "run(x, shell=on)",
        "yaml.load(x)",
    ],
)
def test_a_way_to_run_text_is_seen(code):
    assert any(map(runs_text, ast.walk(ast.parse(code))))


@pytest.mark.parametrize(
    "code", ["try: x\nexcept Exception: y", "ast.literal_eval('1')", "run(x, shell=False)", "yaml.safe_load(x)", "self.evaluate()"]
)
def test_what_is_harmless_is_left_alone(code):
    assert not any(is_wide_catch(node) or runs_text(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    "html",
    [
        '<p style="x">',
        "<style>p{}</style>",
        '<a onclick="x()">',
        '<a hx-on:click="x()">',
        "<script>x()</script>",
        '<script type="module">x()</script>',
        '<a href="javascript:x()">',
    ],
)
def test_a_template_that_the_policy_would_stop_is_seen(html, tmp_path):
    path = tmp_path / "x.html"
    path.write_text(html)
    with pytest.raises(AssertionError):
        test_a_template_needs_no_exception_from_the_content_security_policy(path)


@pytest.mark.parametrize(
    "html", ['<script src="x.js" defer></script>', '<script type="application/json" id="x">{}</script>', "<p>style = on=</p>", '<b data-on="x">']
)
def test_a_template_that_the_policy_lets_through_is_left_alone(html, tmp_path):
    path = tmp_path / "x.html"
    path.write_text(html)
    test_a_template_needs_no_exception_from_the_content_security_policy(path)
