"""Notebooks 05 and 07 in JupyterLab, as a reader has them: a browser runs all cells from the menu, watches
progress bars and moves the controls. Needs Chromium or Chrome, and no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# few classes make the naive versions of the notebooks short; five images are two batches, on the CPU
PARAMETERS = {"dataset": "clothing", "limit": 5, "device": "cpu"}
MINUTE = 60_000                                         # milliseconds, as the browser counts
PATIENCE = 8 * MINUTE                                   # only where other work holds the machine up
# what every progress bar on the page shows, state by state: {"tpt on clothing, 1": ["0/5 [00:00<?, …]", …]}
WATCH = r"""() => {
    window.bars = {};
    const look = () => {
        const seen = {};
        document.querySelectorAll(".jp-OutputArea-output pre").forEach(line => {
            const found = /^(\w+ on \w+):.*\| *(\d+\/\d+ \[.*\])/.exec(line.textContent);
            if (!found) return;
            seen[found[1]] = (seen[found[1]] ?? 0) + 1;         // a method with two starts has two bars
            const states = window.bars[`${found[1]}, ${seen[found[1]]}`] ??= [];
            if (states.at(-1) !== found[2]) states.push(found[2]);
        });
    };
    new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""
# every code cell has run, and JupyterLab says so
ALL_DONE = r"""() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
    const kernel = document.querySelector(".jp-Notebook-ExecutionIndicator");
    return kernel.dataset.status === "idle" && prompts.every(prompt => /^\[\d+\]:$/.test(prompt.textContent));
}"""


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. Playwright drives the one that is installed, and brings none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path)      # with --no-sandbox, so that root may
        yield running
        running.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(folder, address with its token) of JupyterLab with a copy of the notebooks and no user's settings."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks",
                    ignore=shutil.ignore_patterns("results", "exercises", ".*"))
    own = {f"{name}_DIR": str(folder / f"of_jupyter/{name}")
           for name in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_SETTINGS",
                        "JUPYTERLAB_WORKSPACES")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | own | {"PYTHONPATH": path, "JUPYTER_PATH": str(Path(sys.prefix, "share/jupyter"))}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
               f"--ServerApp.root_dir={folder}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = folder / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file,
                                  start_new_session=True)
    deadline = time.monotonic() + 180
    try:
        # the server takes the first free port and writes down which
        while not (found := [*Path(own["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*.json")]):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(.1)
        about = json.loads(found[0].read_text())
        yield folder, f"http://localhost:{about['port']}/lab/workspaces/{{0}}/tree/notebooks/{{0}}.ipynb?token={about['token']}"
    finally:
        server.send_signal(signal.SIGTERM)              # it ends its kernels, too
        server.wait(60)


def shrink(path: Path) -> int:
    """Write small parameters into a notebook and take away its outputs; how many code cells it has."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    parameters = next(cell for cell in code if "parameters" in cell.metadata.get("tags", []))
    for name, value in PARAMETERS.items():
        parameters.source, changed = re.subn(rf"^({name}: \w+ = )\S+", rf"\g<1>{value!r}", parameters.source,
                                             flags=re.M)
        assert changed == 1, name
    nbformat.write(notebook, path)
    return len(code)


def counts(states: list[str]) -> list[int]:
    """How many images a bar said were done, state by state."""
    return [int(state.split("/")[0]) for state in states]


@pytest.mark.parametrize(("name", "evaluated", "sliders", "menus", "boxes"), [
    ("05_tpt", "tpt on clothing", 3, 1, 0), ("07_promptsync", "promptsync on clothing", 2, 1, 3)])
def test_a_reader_runs_a_notebook(browser, lab, name, evaluated, sliders, menus, boxes):
    folder, address = lab
    path = folder / f"notebooks/{name}.ipynb"
    cells = shrink(path)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(2 * MINUTE)
    expect.set_options(timeout=2 * MINUTE)
    page.goto(address.format(name))
    # the kernel's own sign says "idle" before there is a kernel, and what is run then is lost
    expect(page.locator("#jp-main-statusbar")).to_contain_text("(ipykernel) | Idle")
    page.evaluate(WATCH)

    for item in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=item, exact=True).click()
    kernel = page.locator(".jp-Notebook-ExecutionIndicator")
    expect(kernel).to_contain_text(f"Executed {cells} cells", timeout=PATIENCE)
    page.wait_for_function(ALL_DONE)
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    saved = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in saved] == list(range(1, cells + 1))
    assert not [output for cell in saved for output in cell.outputs if output.output_type == "error"]
    assert page.locator("img").count() > 5

    bars = page.evaluate("window.bars")
    assert all(counts(states) == sorted(counts(states)) for states in bars.values())
    assert {counts(states)[-1] for states in bars.values()} == {5}
    assert set(counts(bars[f"{evaluated}, 1"])) == {0, 4, 5}                # batch by batch
    cell = page.locator(".jp-CodeCell").filter(has_text="mp.evaluate(").first
    lines = cell.locator("pre").filter(has_text="5/5 [")
    number = lines.count()
    expect(lines.filter(has_text=evaluated).first).not_to_contain_text("?image/s")
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")                              # all images have a row by now
    expect(cell.locator(".jp-InputPrompt")).to_have_text(f"[{cells + 1}]:")
    expect(lines.filter(has_text="?image/s")).to_have_count(number)

    cell = page.locator(".jp-CodeCell").filter(has=page.locator(".widget-slider"))
    found = [cell.locator(f".widget-{kind}") for kind in ("slider", "dropdown", "checkbox")]
    assert [kind.count() for kind in found] == [sliders, menus, boxes]
    figures, slider = cell.locator("img"), found[0].first
    number, readout = figures.count(), slider.locator(".widget-readout")
    before, value = figures.first.get_attribute("src"), readout.inner_text()
    slider.locator(".noUi-handle").drag_to(slider.locator(".noUi-target"))              # to its middle
    expect(readout).not_to_have_text(value)
    expect(figures.first).not_to_have_attribute("src", before)
    page.wait_for_function(ALL_DONE)
    expect(figures).to_have_count(number)
    before = figures.first.get_attribute("src")
    found[1].locator("select").select_option("16")
    expect(figures.first).not_to_have_attribute("src", before)
    page.close()
