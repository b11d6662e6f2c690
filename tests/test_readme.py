"""What the guide of the notebooks tells a reader to type works to the letter, in an empty folder.

Every fenced block of a section is used. Python blocks run one after the other, as one script; one whose first line is
a comment such as `# mine.py` is saved too. A csv or jsonl block is saved under the file name that the text names last
before it. Each line of a bash block has to be an `irtuning` command.
"""

import re
import shlex
import textwrap
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from irtuning.cli import app
from irtuning.corpora.sources import CORPORA
from irtuning.method.registry import METHODS

GUIDE_FOLDER = Path(__file__).parents[1] / "notebooks"
GUIDE = (GUIDE_FOLDER / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)


def section(text, title):
    """Return a section's text: from its heading to the next one of the same or a higher level."""
    blank = BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)  # a comment in a block is no heading
    headings = [(m.start(), len(m[1]), m[2].strip()) for m in re.finditer(r"^(#+) (.+)$", blank, re.MULTILINE)]
    ((start, level, _),) = (heading for heading in headings if heading[2] == title)
    return text[start : min((at for at, other, _ in headings if at > start and other <= level), default=len(text))]


def use(text, folder):
    """Do what a section says in `folder`; return the kinds of its blocks."""
    names, kinds = {"__name__": "__main__"}, []
    for block in BLOCK.finditer(text):
        kind, code = block[2], textwrap.dedent(block[3])
        kinds.append(kind)
        if kind == "python":
            if saved := re.match(r"# ([\w-]+\.py)\b", code):
                (folder / saved[1]).write_text(code)
            exec(compile(code, "guide", "exec"), names)
        elif kind in ("csv", "jsonl"):
            (folder / re.findall(rf"[\w-]+\.{kind}", text[: block.start()])[-1]).write_text(code)
        else:
            assert kind in ("bash", "sh"), f"a block of an unknown kind: {block[0]}"
            lines = (shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines())
            for program, *words in filter(None, lines):
                assert program == "irtuning", f"not a command of this package: {program}"
                made = CliRunner().invoke(app, words, catch_exceptions=False)
                assert made.exit_code == 0, made.output
    return kinds


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty working folder; strategies and corpora that a section registers are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # runs in this process, because new ones would take longer to start
    with mock.patch.dict(METHODS), mock.patch.dict(CORPORA):
        yield tmp_path


@pytest.mark.parametrize("title", ["A strategy of your own", "A corpus of your own"])
def test_a_reader_who_types_what_the_guide_says_gets_what_it_promises(title, empty_folder):
    assert "python" in use(section(GUIDE, title), empty_folder)


SAMPLE = """# Title\n## One\nText, then a file `rows.csv`:\n```csv\nbefore,after\na,b\n```
```python\n# mine.py\n# not a heading\nfrom pathlib import Path\nrows = Path("rows.csv").read_text().splitlines()\n```
### Part of One\n1. In a list:\n   ```python\n   Path("made").write_text(str(len(rows)))\n   ```
```bash\nirtuning methods --json  # a comment\n\nirtuning settings \\\n    --json\n```\n## Two\nnothing here\n"""


def test_every_block_of_a_section_is_used_and_one_that_fails_is_not_passed_over(empty_folder):
    assert use(section(SAMPLE, "One"), empty_folder) == ["csv", "python", "python", "bash"]
    assert sorted(path.name for path in empty_folder.iterdir()) == ["made", "mine.py", "rows.csv"]
    assert (empty_folder / "made").read_text() == "2" and use(section(SAMPLE, "Two"), empty_folder) == []
    for block in ("python\n1 / 0", "bash\npip install x", "\nx", "bash\nirtuning corpus x"):
        with pytest.raises((ArithmeticError, AssertionError, ValueError)):
            use(f"## One\n```{block}\n```\n", empty_folder)


def test_the_readme_is_short_and_what_it_links_to_exists():
    root = Path(__file__).parents[1]
    text = (root / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    titles = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", text)
    assert len(links) > 20 and not [path for path, _ in links if not (root / path).exists()]
    assert not [anchor for path, anchor in links if anchor and (path, anchor) not in {("notebooks/README.md", a) for a in anchors}]


def test_what_a_committed_report_links_to_exists():
    pages = [*(GUIDE_FOLDER.parent / "reports").rglob("*.md"), GUIDE_FOLDER / "README.md"]
    pages = [page for page in pages if page.parent.name != "quick"]  # which `irtuning reproduce` made, here or elsewhere
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!http|#)([^)#\s]+)", page.read_text("utf-8"))]
    assert len(links) > 10 and not [(page.name, link) for page, link in links if not (page.parent / link).exists()]
