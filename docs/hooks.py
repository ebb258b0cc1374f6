"""What the documentation's build writes by itself, and what it refuses.

A page names what is to be written into it by a comment, ``<!-- generate: methods -->`` or
``<!-- include: CHANGELOG.md -->``. Everything generated comes from the code, so that it cannot
disagree with it, and nothing generated is committed. A public name without a docstring is a
warning, and ``mkdocs build --strict`` fails on warnings.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import griffe
from griffe import Docstring, DocstringSectionKind

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from harness.command_line import COMMANDS  # noqa: E402
from harness.conditions import Conditions  # noqa: E402
from harness.registry import Entry, Registry  # noqa: E402
from harness.results.frame import keys  # noqa: E402
from harness.settings import Setting  # noqa: E402

log = logging.getLogger("mkdocs.hooks")

GENERATE = re.compile(r"^<!-- generate: ([\w-]+) -->$", re.MULTILINE)
INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)
DOCUMENTED = re.compile(r"^::: ([\w.]+)", re.MULTILINE)

GROUPS = {
    "dense": "The dense network",
    "unstructured": "Unstructured methods",
    "structured": "Structured methods",
    "control": "Controls",
}
"""The groups of pruners in the order of the page, with their headings."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the comments of a page by what they ask for."""
    here = Path(page.file.src_uri).parent
    markdown = GENERATE.sub(lambda found: GENERATORS[found[1]](), markdown)
    markdown = INCLUDE.sub(lambda found: included(found[1], here), markdown)
    for module in DOCUMENTED.findall(markdown):
        for name in undocumented(module):
            log.warning("%s: the public name %s has no docstring", page.file.src_uri, name)
    return markdown


def included(name: str, here: Path) -> str:
    """Return a file of the project: code as a block, Markdown with links that fit the page.

    Args:
        name: the file, from the project's folder.
        here: the page's folder, from the folder of the documentation.
    """
    text = (PROJECT / name).read_text(encoding="utf-8")
    if language := LANGUAGES.get(Path(name).suffix):
        return f'```{language} title="{Path(name).name}"\n{text}```'

    def link(found: re.Match[str]) -> str:
        label, target = found[2], found[3]
        if "://" in target or target.startswith("#"):
            return found[0]
        path, _, anchor = target.partition("#")
        file = (PROJECT / name).parent.joinpath(path).resolve()
        page = PAGES.get(str(file.relative_to(PROJECT)))
        if page is None and file.is_relative_to(PROJECT / "docs"):
            page = str(file.relative_to(PROJECT / "docs"))
        if page is None:
            return label
        return f"{found[1]}[{label}]({os.path.relpath(page, here)}{'#' if anchor else ''}{anchor})"

    text = re.sub(r"(!?)\[([^\]]+)\]\(([^)\s]+)\)", link, text)
    return INCLUDE.sub(lambda found: included(found[1], here), text)


LANGUAGES = {".py": "python", ".toml": "toml"}
"""The languages of files of code, by their ending."""


PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "benchmarks": "findings.md",
    "benchmarks/README.md": "findings.md",
}
"""The pages of files outside the folder of the documentation."""

WHEN = {
    "never": "nothing",
    "before": "before training",
    "early": "early in training",
    "during": "during training",
    "after": "after training",
}
"""When a method prunes, by the argument ``when`` of its decorator."""


def methods() -> str:
    """Return every pruner: paper, options, explanation, program and criterion."""
    entries = list(own("pruner"))
    found = {group: [e for e in entries if group_of(e) == group] for group in GROUPS}
    parts = [
        f"## {heading}\n\n" + "\n".join(method(entry) for entry in found[group])
        for group, heading in GROUPS.items()
    ]
    contents = [("method", "name", "paper", "in one sentence")]
    contents += [
        (f"[{entry.title}](#{entry.name})", f"`{entry.name}`", paper(entry), prose(entry.summary))
        for group in GROUPS
        for entry in found[group]
    ]
    return "\n".join([table(contents), *parts])


def method(entry: Entry) -> str:
    """Return the section of one pruner."""
    text, function = entry.source.read_text(encoding="utf-8"), definition(entry)
    facts = [f"Name: `{entry.name}`", f"version {entry.version}"]
    if reference := paper(entry):
        facts.insert(1, f"paper: {reference}")
    if when := entry.arguments.get("when"):
        facts.append(f"prunes {WHEN[when]}")
    if needs := entry.arguments.get("needs"):
        facts.append(f"needs {', '.join(needs)}")
    if entry.arguments.get("exceeds_budget"):
        facts.append("trains longer than the budget")
    program = "\n".join(program_of(text, function))
    scores = [
        f"*{title}* [`{name}`][{module}.{name}]: {first(docstring(module, name))}\n"
        for title, module, name in parts_used(text, function)
    ]
    return "\n".join(
        [
            f"### {entry.title} {{ #{entry.name} }}\n",
            ", ".join(facts) + ".\n",
            rendered(ast.get_docstring(function) or ""),
            *options(entry),
            f"```python\n{program}\n```\n",
            *scores,
        ]
    )


def program_of(text: str, function: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """Return the lines of a function's definition and body, without decorators and docstring."""
    lines = text.splitlines()
    first, *rest = function.body
    assert function.end_lineno is not None
    assert first.end_lineno is not None
    yield from lines[function.lineno - 1 : first.lineno - 1]
    if rest:
        yield from lines[first.end_lineno : function.end_lineno]


KINDS = {
    "activations": "Criterion",
    "criteria": "Criterion",
    "functional_criteria": "Criterion",
    "triggers": "Trigger",
    "schedules": "Schedule",
    "distributions": "Distribution",
}
"""What a method is made of, by the last part of the module's name."""


def parts_used(text: str, function: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Return kind, module and name of the criteria, triggers and schedules of a method."""
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    used = [node.id for node in ast.walk(function) if isinstance(node, ast.Name)]
    for name in dict.fromkeys(used):
        module, original = imported.get(name, ("", ""))
        kind = KINDS.get(module.rpartition(".")[2])
        if kind is not None and (resolved := resolve(module, original)) is not None:
            yield kind, *resolved


def resolve(module: str, name: str) -> tuple[str, str] | None:
    """Return where a name is defined: an alias such as `lazy_regime` is followed to its class."""
    if module.partition(".")[0] not in ("pruners", "harness"):
        return None
    member = loaded(module).members.get(name)
    if member is None:
        return None
    value = getattr(member, "value", None)
    if member.is_attribute and value is not None and str(value) in loaded(module).members:
        return module, str(value)
    return module, name


def docstring(module: str, name: str) -> str:
    """Return the docstring of a public name."""
    found = loaded(module).members[name].docstring
    return found.value if found else ""


def tasks() -> str:
    """Return every task: data, metric, model, settings by profile, and files to fetch."""
    return "\n".join(task(entry) for entry in own("task"))


def task(entry: Entry) -> str:
    """Return the section of one task."""
    arguments = entry.arguments
    profiles: Mapping[str, Mapping[str, Any]] = arguments["profiles"]
    better = {"max": "larger is better", "min": "smaller is better"}[arguments["goal"]]
    facts = [
        f"Name: `{entry.name}`, metric: `{arguments['metric']}` ({better})",
        f"default sparsity: {arguments.get('sparsity', 0.98):g}, version {entry.version}",
    ]
    rows = [("setting", *(f"`{profile}`" for profile in profiles), "meaning", "permitted")]
    for name, setting in entry.declared.items():
        values = (
            f"**{value(changed[name])}**" if name in changed else value(setting.default)
            for changed in profiles.values()
        )
        rows.append((f"`{name}`", *values, prose(setting.help), permitted(setting)))
    files = ", ".join(f"`{name}`" for name in arguments.get("downloads") or {})
    fetched = [f"Files that `data fetch {entry.name}` downloads: {files}.\n"] if files else []
    by_hand = [
        "Data that you have to download yourself:\n",
        *(f"* {line}" for line in arguments.get("by_hand") or ()),
        "",
    ]
    return "\n".join(
        [
            f"## {entry.title} {{ #{entry.name} }}\n",
            f"{'; '.join(facts)}.\n",
            rendered(ast.get_docstring(definition(entry)) or ""),
            table(rows),
            *fetched,
            *(by_hand if arguments.get("by_hand") else ()),
        ]
    )


def record() -> str:
    """Return the keys of a record: place, type, unit, whether they depend on a device, meaning."""
    header = ("key", "type", "unit", "by device", "meaning")
    sections: dict[str, list[Sequence[str]]] = {}
    for key in keys():
        part, dot, _ = key.place.partition(".")
        by_device = "yes" if key.field.by_device else ""
        row = (f"`{key.place}`", key.kind, key.field.unit, by_device, prose(key.field.meaning))
        sections.setdefault(part.removesuffix("[]") if dot else "", [header]).append(row)
    whole = table(sections.pop(""))
    return "\n".join([whole, *(f"## `{part}`\n\n{table(rows)}" for part, rows in sections.items())])


def command_line() -> str:
    """Return the help of every command."""
    parts = [f"```text\n{help_of()}\n```\n"]
    parts += [f"## {command}\n\n```text\n{help_of(command)}\n```\n" for command in COMMANDS]
    return "\n".join(parts)


def help_of(*command: str) -> str:
    """Return what ``--help`` prints."""
    words = [sys.executable, "-m", "harness", *command, "--help"]
    environment = {**os.environ, "COLUMNS": "84"}
    ended = subprocess.run(
        words, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.rstrip()


def conditions() -> str:
    """Return the conditions of a run as a table."""
    rows = [("condition", "default", "meaning", "permitted")]
    rows += [
        (f"`{name}`", f"`{value(c.default)}`", prose(c.help), permitted(c))
        for name, c in Conditions.declared().items()
    ]
    return table(rows)


def options(entry: Entry) -> list[str]:
    """Return the options of a pruner as a table."""
    rows = [("option", "default", "meaning", "permitted")]
    rows += [
        (f"`{name}`", value(option.default), prose(option.help), permitted(option))
        for name, option in entry.declared.items()
    ]
    return [table(rows)] if entry.declared else []


def permitted(setting: Setting) -> str:
    """Return the permitted values of a setting."""
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    return setting.permitted


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is the header; a column that is empty below it is left out."""
    kept = [n for n, title in enumerate(rows[0]) if any(row[n] for row in rows[1:])]
    lines = ["| " + " | ".join(row[n] for n in kept) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(kept) + "|", *lines[1:], ""])


def own(kind: Any) -> Iterator[Entry]:
    """Return what this project registers, whatever else is installed, in alphabetical order."""
    for entry in Registry().of_kind(kind).values():
        if (entry.module or "").partition(".")[0] in ("tasks", "pruners"):
            yield entry


def group_of(entry: Entry) -> str:
    """Return the group of a pruner."""
    return str(entry.arguments.get("group", "unstructured"))


def paper(entry: Entry) -> str:
    """Return a link to the paper of a pruner, empty if it has none."""
    text = str(entry.arguments.get("paper") or "")
    scheme, _, number = text.partition(":")
    if text.startswith("openreview.net/"):
        return f"[OpenReview](https://{text})"
    return f"[{text}](https://arxiv.org/abs/{number})" if scheme == "arXiv" else text


def definition(entry: Entry) -> ast.FunctionDef | ast.ClassDef:
    """Return the syntax tree of what an entry registers."""
    for node in ast.parse(entry.source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == entry.attribute:
            return node
    raise LookupError(entry.attribute)


def rendered(text: str) -> str:
    """Return the text of a Google-style docstring as Markdown, without its sections."""
    sections = Docstring(text).parse("google", warnings=False)
    return "\n\n".join(prose(s.value) for s in sections if s.kind is TEXT) + "\n"


TEXT = DocstringSectionKind.text


def first(text: str) -> str:
    """Return the first paragraph of a docstring as Markdown."""
    return prose(text.partition("\n\n")[0])


def prose(text: str) -> str:
    """Return text with single backticks and indented blocks, as Markdown wants them."""
    return re.sub(r"::\n", ":\n", text.replace("``", "`"))


def value(of: object) -> str:
    """Return a setting as the command line takes it."""
    if isinstance(of, bool):
        return str(of).lower()
    return f"{of:g}" if isinstance(of, float) else str(of)


def loaded(module: str) -> griffe.Module:
    """Return what is known of a module without importing it."""
    if module not in _LOADED:
        found = griffe.load(module, search_paths=[str(PROJECT)], docstring_parser="google")
        assert isinstance(found, griffe.Module)
        _LOADED[module] = found
    return _LOADED[module]


_LOADED: dict[str, griffe.Module] = {}


def undocumented(path: str) -> Iterator[str]:
    """Return the public names of a module or a class that have no docstring, fields excepted."""
    waiting = [griffe.load(path, search_paths=[str(PROJECT)], docstring_parser="google")]
    while waiting:
        each = waiting.pop()
        is_field = each.is_attribute and each.parent is not None and each.parent.is_class
        if not each.has_docstring and not is_field:
            yield each.path
        if each.is_module or each.is_class:
            waiting += [member for member in each.members.values() if is_public(member)]


def is_public(member: Any) -> bool:
    """Return whether a member is documented: neither imported nor private nor a module."""
    return not (member.is_alias or member.is_module or member.name.startswith("_"))


GENERATORS: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "tasks": tasks,
    "conditions": conditions,
    "record": record,
    "command-line": command_line,
}
"""What a page may ask for."""
