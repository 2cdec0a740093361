"""The documentation's code is that of files which run, and the output that it shows is theirs."""

from __future__ import annotations

import logging
import re
import runpy
from pathlib import Path

import pytest
import torch

from nasmw.testing import toy_space

ROOT = Path(__file__).parent.parent
DOCS = sorted(ROOT.glob("docs/*.md"))
EXAMPLES = sorted(ROOT.glob("examples/docs_*.py"))
BLOCK = re.compile(r"(?:<!-- (?P<marker>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Return the marker and the text of each block of code in a language."""
    return [
        (found["marker"] or "", found["text"])
        for found in BLOCK.finditer(page.read_text())
        if found["language"] == language
    ]


def run(example: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(folder)
    logging.getLogger("nasmw").setLevel(logging.ERROR)
    try:
        runpy.run_path(str(example), run_name="__main__")
    finally:
        logging.getLogger("nasmw").setLevel(logging.NOTSET)
    return capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_prints_what_the_docs_say(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(example, tmp_path, monkeypatch, capsys)
    words = " ".join(printed.split())
    for page in DOCS:
        for marker, text in blocks(page, "text"):
            if marker != f"output of examples/{example.name}":
                continue
            if "..." not in text and example.stem != "docs_troubleshooting":
                assert text.strip() == printed.strip(), page.name
                continue
            place = 0
            for part in re.split(r"\.\.\.|\n\n", text):
                wanted = " ".join(part.split())
                assert wanted in words[place:], f"{page.name}: {wanted!r} is not printed, or not in this order"
                place = words.index(wanted, place) + len(wanted)


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_code_of_a_page_is_that_of_a_file(page: Path) -> None:
    for marker, text in blocks(page, "python"):
        assert marker.startswith("examples/"), f"a block of Python does not name its file:\n{text}"
        code = (ROOT / marker).read_text()
        assert text.strip() in code, f"not in {marker}:\n{text}"
    for marker, text in blocks(page, "text"):
        assert marker.startswith("output of examples/"), (
            f"a block of text does not name the file that prints it:\n{text}"
        )
        assert (ROOT / marker.removeprefix("output of ")).is_file()


def test_every_example_is_in_a_page() -> None:
    pages = "\n".join(page.read_text() for page in DOCS)
    missing = [example.name for example in EXAMPLES if f"examples/{example.name}" not in pages]
    assert not missing


def test_own_model_takes_at_most_30_lines() -> None:
    code = (ROOT / "examples/docs_search.py").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((_, code),) = blocks(ROOT / "README.md", "python")
    fewer = code.replace("trials=500", "trials=4")
    assert fewer != code
    monkeypatch.chdir(tmp_path)
    given = {"space": toy_space(), "example_input": torch.zeros(1, 3, 8, 8), "evaluate": lambda trial: 0.5}
    exec(compile(fewer, "README.md", "exec"), given)
    assert "TrialRecord(number=0" in capsys.readouterr().out
    assert (tmp_path / "run.db").is_file()
