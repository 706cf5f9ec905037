"""README.md shows every option exactly as ``extras.options`` has it; figures that are shown were measured.

After an option changes, put the output of ``python tests/unit/test_readme.py`` in place of README.md's table.
"""

import re
from dataclasses import Field
from pathlib import Path
from typing import Any, List

from extras.bench import markdown, recorded
from extras.options import TABLE, default_of

README = Path(__file__).resolve().parents[2] / "README.md"
DOCS = README.parent / "docs"
FIGURES = DOCS / "benchmark.json"


def options_table() -> str:
    """Return the Markdown table of all options, without a newline at its end."""
    rows = [["Option", "Type (unit)", "Default", "Meaning"], ["---"] * 4]
    for name, row in TABLE.items():
        kind, unit = row.metadata["kind"], row.metadata["unit"]
        rows.append([f"`{name}`", f"{kind} ({unit})" if unit else kind, _default(row), row.metadata["doc"]])
    return "\n".join(_line(cells) for cells in rows)


def _line(cells: List[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(row: "Field[Any]") -> str:
    value = default_of(row)
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def test_readme_has_the_table_of_options() -> None:
    assert options_table() in README.read_text(encoding="utf-8"), (
        "README.md's options differ from extras.options.TABLE; replace its table by the output of "
        "`python tests/unit/test_readme.py`"
    )


def test_table_has_a_row_for_every_option_and_a_cell_for_every_column() -> None:
    lines = options_table().splitlines()
    assert len(lines) == 2 + len(TABLE)
    for line, name in zip(lines[2:], TABLE):
        cells = line.replace("\\|", "").split("|")
        assert len(cells) == 6, line
        assert cells[1] == f" `{name}` "
        assert all(cell.strip() for cell in cells[1:5]), line


def test_the_matrix_has_no_empty_cell() -> None:
    text = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    made = text.partition("<!-- made by make matrix -->\n")[2].partition("<!-- end of what make matrix makes -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.splitlines()]
    assert len(rows) == 9
    for row in rows:
        assert len(row) == len(rows[0])
        assert all(row)
    assert not any("FAILED" in cell or "not run" in cell for row in rows for cell in row)


def test_the_pages_have_the_tables_of_the_benchmarks_figures() -> None:
    places = {"tracker": DOCS / "benchmark.md", "wire": DOCS / "benchmark.md", "async": DOCS / "benchmark.md"}
    places["faults"] = README  # from where docs/failures.md has it
    tables = markdown.tables(recorded.as_one(recorded.read(FIGURES)))
    assert tables.keys() == places.keys()
    for name, table in tables.items():
        assert table in places[name].read_text(encoding="utf-8"), (
            f"{places[name].name}'s table of {name} differs from {FIGURES.name}; replace it by that of "
            f"`python -m extras.bench --from docs/{FIGURES.name} --markdown`"
        )


def test_all_figures_are_in_one_file() -> None:
    assert [path.name for path in DOCS.rglob("benchmark*.json")] == [FIGURES.name]


def test_what_the_readme_shows_of_the_figures_are_rows_of_their_page() -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.partition("\n## Benchmark\n")[2].partition("\n## ")[0]
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    page = (DOCS / "benchmark.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 10
    assert [row for row in rows if row not in page] == []


def test_the_pictures_that_the_readme_shows_are_there() -> None:
    shown = re.findall(r"^!\[[^\]]{20,}\]\(([^)]+)\)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert "docs/conversations-show.svg" in shown
    assert [path for path in shown if not (README.parent / path).is_file()] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


if __name__ == "__main__":
    print(options_table())
