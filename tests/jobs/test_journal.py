"""The journal: what a kill tore is let go, and what was damaged since is named."""

import pytest

from fairbench import FairbenchError
from fairbench.jobs.journal import Journal


@pytest.mark.parametrize("line", ['["b", 2', "3", '["b"]', "[[], 2]"])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    Journal(path).add("a", 1)
    with path.open("a") as file:
        file.write('["torn", ')
    assert Journal(path).entries == {"a": 1}
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(FairbenchError, match=r"answers\.jsonl: line 2 is damaged"):
        Journal(path)
