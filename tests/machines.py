"""Run the tests that compare floating point numbers as other machines would: `make test-machines`.

The same sum comes out with other last digits where a processor has other vector instructions, or another
number of threads shares it. Here torch is told to use fewer instructions than this processor has (environment
variables ATEN_CPU_CAPABILITY and, for the libraries in it, MKL_ENABLE_INSTRUCTIONS and ONEDNN_MAX_CPU_ISA),
with 1, 2 and 4 threads, and each setting runs several times, as threads may finish in another order. A test
that fails in any of them sits on a tie, or its bound is what one machine happened to give; rounding.py says
where bounds come from. Ends with a table, and with exit status 1 if anything failed.

The files are those of tests/ that compare numbers (COMPARES); nobody keeps a list. Tests marked `slow`, those
over 10 seconds, which start processes of their own and set their threads themselves, are left out unless
--slow is given. A run takes about a minute on two cores, all of them 50.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent
COMPARES = re.compile(r"^from rounding import|torch\.(equal|allclose)\(|assert_close|pytest\.approx", re.M)
OLDER = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
INSTRUCTIONS = {"default": {"ATEN_CPU_CAPABILITY": "default"}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
                "all-avx2": {"ATEN_CPU_CAPABILITY": "avx2", **OLDER}, "own": {}}   # own: the machine as it is
SETTINGS = [f"{name}:{threads}" for name in ("default", "avx2", "own") for threads in (1, 2, 4)]
SETTINGS += ["all-avx2:2"]


def files_that_compare():
    return sorted(file for file in TESTS.rglob("test_*.py") if COMPARES.search(file.read_text("utf-8")))


def environment(setting):
    """This process's environment with the variables of `setting`, "instructions:threads"."""
    name, threads = setting.split(":")
    own = {k: v for k, v in os.environ.items() if k not in {"ATEN_CPU_CAPABILITY", *OLDER}}
    # passive: where threads outnumber the cores, those that wait leave them to the others
    return own | INSTRUCTIONS[name] | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}


def run(setting, files, arguments):
    """(exit status, everything that pytest said) of one run."""
    # a worker a core, whatever the number of threads: most tensors are too small to be shared
    workers = ["-n", str(os.cpu_count() or 1), "--dist", "loadfile"]
    pytest = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run([*pytest, *workers, *arguments, *files], cwd=TESTS.parent, env=environment(setting),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
                          errors="replace")
    return done.returncode, done.stdout


def table(runs):
    """runs: setting -> [(status, said, seconds)]."""
    lines = [f"{'setting':<12}{'runs':>5}{'failed':>8}{'s a run':>9}  tests that failed (in how many runs)"]
    for setting, done in runs.items():
        tests = Counter(name for _, said, _ in done
                        for name in re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M))
        failed = sum(status != 0 for status, _, _ in done)
        seconds = sum(seconds for _, _, seconds in done) / max(1, len(done))
        names = ", ".join(f"{name} ({n})" for name, n in tests.most_common()) or ("?" if failed else "none")
        lines.append(f"{setting:<12}{len(done):>5}{failed:>8}{seconds:>9.0f}  {names}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog="What else is given is for pytest: -x",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="runs of each setting (5)")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, choices=SETTINGS, metavar="SETTING",
                        help=f"some of {', '.join(SETTINGS)} (all): instructions:threads")
    parser.add_argument("--slow", action="store_true", help="with the tests marked slow")
    options, arguments = parser.parse_known_args()
    arguments = ([] if options.slow else ["-m", "not slow"]) + arguments
    files, runs = files_that_compare(), {setting: [] for setting in options.settings}
    print(f"{len(files)} files: {', '.join(file.stem for file in files)}", flush=True)
    try:
        for time_ in range(options.times):                       # every setting once, then again
            for setting in options.settings:
                start = time.monotonic()
                status, said = run(setting, files, arguments)
                runs[setting].append((status, said, time.monotonic() - start))
                summary = said.strip().splitlines()[-1] if said.strip() else "nothing was said"
                print(f"run {time_ + 1} of {options.times}, {setting}: {summary}", flush=True)
                if status:
                    print(said, flush=True)
            print(table(runs), flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; so far:\n{table(runs)}")
    return int(any(status for done in runs.values() for status, _, _ in done))


if __name__ == "__main__":
    sys.exit(main())
