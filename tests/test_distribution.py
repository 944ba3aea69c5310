"""What is given away: a source distribution with all that git tracks, and a wheel that works anywhere."""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from versions import ROOT

import minipsync

pytestmark = pytest.mark.slow
# nothing that leads back to the source
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}


def run(*command, cwd):
    """What the command prints; AssertionError with all that it said if it fails."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env=CLEAN, text=True, encoding="utf-8",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def tracked():
    """Files of the project as git sees them, those not yet committed included: {"pyproject.toml", …}."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only git knows which files belong to the project: {error}")
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """(sdist, wheel), the wheel built from the sdist. From a copy, as setuptools writes beside the source."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Python of an environment that has the wheel, and the dependencies of this one but not its minipsync."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent)
    python = home / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps"]
    run(*pip, built[1], cwd=home)
    # Only now, so that pip has not seen them. A path in a .pth file is searched for modules, but the .pth
    # files that lie there, such as the one of an editable install, are not read.
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    paths = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    own = Path(run(python, "-c", where, cwd=home).strip())
    (own / "dependencies.pth").write_text("\n".join(sorted(paths)), encoding="utf-8")
    return python


def test_sdist_has_all_that_git_tracks(built, tracked):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert tracked - names == set()
    made = {name for name in names - tracked if not name.startswith("minipsync.egg-info/")}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_wheel_has_all_of_the_package_and_nothing_else(built, tracked):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    about = f"minipsync-{minipsync.__version__}.dist-info/"
    assert {n for n in names if not n.startswith(about)} == {n for n in tracked if n.startswith("minipsync/")}
    assert {f"{about}licenses/{name}" for name in ("LICENSE", "NOTICE", "LICENSES/OFL-1.1.txt")} <= names


WALK = """
import importlib.metadata, sys
import minipsync as mp
print("from", mp.__file__)
print("path", *sys.path, sep="\\n")
assert importlib.metadata.version("minipsync") == mp.__version__
bench = mp.benchmark("mini")
data, clip = bench.dataset("sketch"), bench.clip()
for name in "zero_shot", "maple":
    method = mp.build(name, clip, data.class_names, **bench.settings(name))
    if name == "maple":
        method.load()
    print(name, mp.evaluate(method, data, limit=1, progress=False).n)
"""


def test_wheel_runs_from_another_folder(installed, tmp_path):
    said = run(installed, "-c", WALK, cwd=tmp_path)
    home = installed.parents[1]
    assert re.search(rf"^from {re.escape(str(home))}/", said, re.M)
    assert str(ROOT) not in said.splitlines()                            # of sys.path; its .venv is there
    assert re.search(r"^zero_shot 1$", said, re.M) and re.search(r"^maple 1$", said, re.M)


def test_command_of_the_wheel(installed, tmp_path):
    command = installed.parent / "minipsync"
    said = run(command, "info", cwd=tmp_path)
    assert said.startswith(f"minipsync {minipsync.__version__},")
    prompts, statistics = (len(list((ROOT / "minipsync/assets" / kind).glob("*.safetensors")))
                           for kind in ("prompts", "statistics"))
    assert f"shipped: {prompts} prompt files, {statistics} of source" in said

    run(command, "run", "zero_shot", "maple", "--dataset", "sketch,r", "--limit", "5", cwd=tmp_path)
    table = run(command, "table", "domain_generalisation", cwd=tmp_path)
    assert "mini" in table and "published" in table                      # measured, beside what papers print
