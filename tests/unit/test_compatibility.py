"""docs/compatibility.md names the versions that the metadata, the test cells and the workflows have, and no others."""

import re
import runpy
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "compatibility.md").read_text(encoding="utf-8")
VERSIONS = PAGE.partition("## Clients on servers")[0]
PYPROJECT = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in VERSIONS.splitlines() if line[:1] == "|"
    )
}
EXACT = re.compile(r"\b\d+\.\d+\.\d+\b")


@pytest.fixture(scope="module")
def cells() -> Dict[str, Any]:
    """What tests/cells.py defines; it is run, not imported, under a name that starts nothing."""
    return runpy.run_path(str(PROJECT / "tests" / "cells.py"))


def versions_of(cells: Dict[str, Any], host: str) -> Set[str]:
    found = {cell.host.replace("-full", "") for cell in cells["CELLS"] if cell.host}
    return {name[len(host) + 1 :] for name in found if re.fullmatch(rf"{host}-[\d.]+", name)}


def as_minor(versions: Set[str]) -> Set[str]:
    return {version.rsplit(".", 1)[0] for version in versions}


def listed(row: str) -> Set[str]:
    return set(ROWS[row][0].split(", "))


def test_pythons_are_those_of_the_metadata_and_the_wheels() -> None:
    classified = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT))
    assert listed("CPython") == classified == {f"3.{minor}" for minor in re.findall(r'"cp3(\d+)-\*"', PYPROJECT)}
    assert f'requires-python = ">={min(classified, key=minor)}"' in PYPROJECT


def minor(version: str) -> int:
    return int(version.split(".")[1])


def test_each_python_is_tested_or_said_not_to_be(cells: Dict[str, Any]) -> None:
    tested = {cell.python for cell in cells["CELLS"]}
    elsewhere = set(re.findall(r"3\.\d+(?= in the workflows)", ROWS["CPython"][1]))
    assert tested | elsewhere == listed("CPython")
    assert not tested & elsewhere
    assert elsewhere <= {cell.python for cell in cells["NEWEST"]}


@pytest.mark.parametrize(("row", "host"), [("Rasa", "rasa"), ("Rasa Pro", "rasa-pro")])
def test_hosts_are_those_of_the_cells(row: str, host: str, cells: Dict[str, Any]) -> None:
    tested = versions_of(cells, host)
    assert tested
    assert set(EXACT.findall(ROWS[row][1])) == tested
    assert listed(row) == as_minor(tested)


def test_redis_pys_are_those_of_the_cells_and_the_dependency(cells: Dict[str, Any]) -> None:
    pinned = [re.search(r"redis(\d+\.\d+\.\d+)", cell.name) for cell in cells["CELLS"] if cell.name.startswith("unit-")]
    tested = {found.group(1) for found in pinned if found}
    assert set(EXACT.findall(ROWS["redis-py"][1])) == tested
    assert f'"redis>={ROWS["redis-py"][0].split()[0]}"' in PYPROJECT
    assert f'"hiredis>={ROWS["hiredis"][0].split()[0]}"' in PYPROJECT


@pytest.mark.parametrize("server", ["Redis", "Valkey"])
def test_servers_are_those_of_the_matrix(server: str) -> None:
    head = PAGE.partition("<!-- made by make matrix -->\n")[2].partition("\n")[0]
    tested = {version.rpartition(".")[0] for version in re.findall(rf"{server} (\d+\.\d+\.\d+)", head)}
    assert tested
    assert set(re.findall(r"\d+\.\d+", ROWS[server][1])) == tested


def test_systems_are_those_of_a_release() -> None:
    systems: List[str] = [
        f"{'Linux' if 'linux' in system else system.split()[0]} {system.split()[1]}"
        for system in runpy.run_path(str(PROJECT / "tests" / "release" / "released.py"))["SYSTEMS"]
    ]
    documented = {
        f"{row.split(',')[0]} {machine}"
        for row in ROWS
        if row.startswith(("Linux", "macOS", "Windows"))
        for machine in listed(row)
    }
    assert documented == set(systems)


def test_the_readme_says_the_same_of_rasa() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for version in listed("Rasa"):
        assert re.search(rf"^\| {re.escape(version)} \|", readme, re.MULTILINE)
    for version in listed("Rasa Pro"):
        assert re.search(rf"^\| Pro {re.escape(version)} \|", readme, re.MULTILINE)


def test_the_workflow_runs_each_cell_of_the_newest(cells: Dict[str, Any]) -> None:
    text = (PROJECT / ".github" / "workflows" / "newest.yml").read_text(encoding="utf-8")
    found = dict(re.findall(r'- cell: (\S+)\n\s+python: "(\S+)"', text))
    assert found == {cell.name: cell.python for cell in cells["NEWEST"]}
    assert all(cell.newest for cell in cells["NEWEST"])


def test_the_nightly_workflow_runs_cells_that_there_are(cells: Dict[str, Any]) -> None:
    text = (PROJECT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    named = re.findall(r"- cell: (\S+)", text)
    known = [cell.name for cell in [*cells["CELLS"], *cells["NIGHTLY"]]]
    assert "nightly-wheels" in named
    assert set(named) <= set(known)


def test_a_release_lacks_nothing() -> None:
    released = runpy.run_path(str(PROJECT / "tests" / "release" / "released.py"))
    version, missing = released["VERSION"], released["missing"]
    tags = [
        "manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64",
        "manylinux_2_28_aarch64",
        "musllinux_1_2_x86_64",
        "musllinux_1_2_aarch64",
        "macosx_10_13_x86_64",
        "macosx_11_0_arm64",
        "win_amd64",
    ]
    pythons = re.findall(r'"(cp3\d+)-\*"', PYPROJECT)
    names = [f"rasa_extras-{version}.tar.gz"]
    names += [f"rasa_extras-{version}-{python}-{python}-{tag}.whl" for python in pythons for tag in tags]
    assert missing(names) == []
    assert missing(names[1:]) == [f"no rasa_extras-{version}.tar.gz"]
    assert missing(names[:-1]) == [f"0 wheels for {pythons[-1]} on Windows AMD64"]
    extra = f"rasa_extras-{version}-cp314-cp314t-win_amd64.whl"
    assert missing([*names, extra]) == [f"{extra} is of no release"]
