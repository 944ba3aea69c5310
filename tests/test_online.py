"""docs/online.md leads to every notebook on Colab and Binder; `make online` writes the address into it."""
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest
from versions import ROOT

PAGE = (ROOT / "docs/online.md").read_text(encoding="utf-8")
PLACES = {"Colab": r"https://colab\.research\.google\.com/github/([\w-]+/[\w.-]+)/blob/main/(\S+?)\)",
          "Binder": r"https://mybinder\.org/v2/gh/([\w-]+/[\w.-]+)/HEAD\?labpath=(\S+?)\)"}


@pytest.mark.parametrize("name", PLACES)
def test_every_notebook_has_a_link(name):
    found = re.findall(rf"\[{name}\]\({PLACES[name]}", PAGE)
    notebooks = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb"))
    assert [unquote(path) for _, path in found] == notebooks
    assert len({repository for repository, _ in found}) == 1


def test_make_online_writes_the_address(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    page = tmp_path / "docs/online.md"
    page.write_text(PAGE + "\n<https://github.com/OWNER/REPOSITORY>\n", encoding="utf-8")
    refused = subprocess.run(["make", "online", "AT=nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode and "AT=owner/repository" in refused.stderr
    subprocess.run(["make", "online", "AT=you/mini.sync"], cwd=tmp_path, check=True, capture_output=True)
    text = page.read_text(encoding="utf-8")
    assert "OWNER/REPOSITORY" not in text and "github.com/you/mini.sync>" in text
    assert [file.name for file in page.parent.iterdir()] == ["online.md"]
