"""What the site holds beside docs/: the README, the leaderboards, and a page of the public names."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Add pages that stand elsewhere in the repository, or nowhere."""
    pages = {"index.md": text("README.md"), "reference.md": reference(), "leaderboards.md": leaderboards()}
    pages |= {name: text(name) for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    pages |= {f"leaderboards/{path.name}": path.read_text(encoding="utf-8") for path in boards()}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for path in sorted((ROOT / "docs").glob("images/*")):
        files.append(File.generated(config, f"docs/images/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links at pages of the site; what is only in the repository keeps its words."""
    here = "docs" if page.file.abs_src_path else str(Path(page.file.src_uri).parent)

    def pointed(match):
        words, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if re.match(r"[a-z]+:", target):
            return match.group(0)
        path = (ROOT / here / target).resolve()
        inside = path.relative_to(ROOT.resolve()).as_posix() if path.is_relative_to(ROOT.resolve()) else ""
        name = inside.removeprefix("docs/") if inside.endswith(".md") else inside
        if files.get_file_from_path(name) is None:
            return words
        up = "../" * page.file.src_uri.count("/")
        return f"[{words}]({up}{name}{anchor})"

    return LINK.sub(pointed, markdown)


def text(name):
    """Read a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def boards():
    """Return the published leaderboards."""
    return sorted((ROOT / "leaderboards").glob("*.md"))


def leaderboards():
    """Write a page that leads to each published leaderboard."""
    return "# Leaderboards\n\n" + "".join(f"- [{path.stem}](leaderboards/{path.name})\n" for path in boards())


def reference():
    """Write the page of the public names, package by package, from the list that the package itself reads."""
    lines, last = ["# Public names\n\nWhatever a plugin may import: `from fairbench import NAME`.\n"], ""
    for module, name in re.findall(r"^from \.([\w.]+) import (\w+) as \w+$", text("fairbench/__init__.pyi"), re.M):
        package = module.partition(".")[0]
        if package != last:
            lines.append(f"\n## {package}\n")
        lines.append(f"::: fairbench.{module}.{name}\n")
        last = package
    return "\n".join(lines)
