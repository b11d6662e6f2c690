"""What README.md tells a reader to type works to the letter, in an empty folder.

In the sections named below every fenced block is used. Python blocks run one after the other, as one script; a block whose
first line is a comment such as `# mine.py` is also saved under that name. A csv or jsonl block is saved under the file name
that the text names last before it. Each line of a bash block has to be an `irtuning` command.
"""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from irtuning.cli import app
from irtuning.method.registry import METHODS

README = Path(__file__).parents[1] / "README.md"
SECTIONS = ("A strategy of your own", "A corpus of your own")
BLOCK = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)


def section(text, title):
    """Return a section's text: from its heading to the next one of the same or a higher level."""
    blank = BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)  # a comment in a block is no heading
    headings = [(m.start(), len(m[1]), m[2].strip()) for m in re.finditer(r"^(#+) (.+)$", blank, re.MULTILINE)]
    starts = [i for i, (_, _, name) in enumerate(headings) if name == title]
    assert len(starts) == 1, f"README.md has {len(starts)} sections named {title!r}"
    start, level, _ = headings[starts[0]]
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
            exec(compile(code, "README.md", "exec"), names)
        elif kind in ("csv", "jsonl"):
            (folder / re.findall(rf"[\w-]+\.{kind}", text[: block.start()])[-1]).write_text(code)
        elif kind in ("bash", "sh"):
            for line in filter(None, (line.strip() for line in code.replace("\\\n", " ").splitlines())):
                if words := shlex.split(line, comments=True):
                    assert words[0] == "irtuning", f"not a command of this package: {line}"
                    made = CliRunner().invoke(app, words[1:], catch_exceptions=False)
                    assert made.exit_code == 0, made.output
        else:
            pytest.fail(f"a block of an unknown kind: {block[0]}")
    return kinds


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty working folder; strategies that a section registers are forgotten afterwards."""
    before = dict(METHODS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_reader_who_types_what_the_readme_says_gets_what_it_promises(title, empty_folder):
    kinds = use(section(README.read_text(encoding="utf-8"), title), empty_folder)
    assert "python" in kinds, f"section {title!r} has no Python block"


SAMPLE = """# Title
## One
Text, then a file `rows.csv`:
```csv
before,after
a,b
```
```python
# mine.py
# not a heading
from pathlib import Path

rows = Path("rows.csv").read_text().splitlines()
```
### Part of One
1. In a list:
   ```python
   Path("made").write_text(str(len(rows)))
   ```
```bash
irtuning methods --json  # a comment

irtuning settings \\
    --json
```
## Two
nothing here
"""


def test_every_block_of_a_section_is_used(empty_folder):
    assert use(section(SAMPLE, "One"), empty_folder) == ["csv", "python", "python", "bash"]
    assert sorted(path.name for path in empty_folder.iterdir()) == ["made", "mine.py", "rows.csv"]
    assert (empty_folder / "made").read_text() == "2" and use(section(SAMPLE, "Two"), empty_folder) == []


@pytest.mark.parametrize("block", ["```python\n1 / 0\n```", "```bash\npip install x\n```", "```\nx\n```", "```bash\nirtuning corpus x\n```"])
def test_a_block_that_fails_is_not_passed_over(block, empty_folder):
    with pytest.raises((ArithmeticError, AssertionError, pytest.fail.Exception, ValueError)):
        use(f"## One\n{block}\n", empty_folder)
    with pytest.raises(AssertionError, match="0 sections"):
        section(block, "One")
