"""What the fingerprint of a large data set costs: seconds for the first time, and while no file has changed.

    python -m benchmarks.fingerprint [--files 100000] [--kilobytes 4]

The files are made in a temporary folder with 1,000 sub-folders. They lie in the page cache, so what is
measured is the work of the processor and of the system; a disk adds its own time to the first pass.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from minipsync.data import content


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--kilobytes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, ids, places = Path(folder), [], []
        for i in range(options.files):
            path = root / f"{i % 1000:03}" / f"{i}.jpg"
            if i < 1000:
                path.parent.mkdir()
            with open(path, "wb") as file:
                file.write(os.urandom(options.kilobytes * 1024))
            ids.append(f"{path.parent.name}/{path.name}")
            places.append(content.Place(path))
        time.sleep(content.FRESH + 1)                # what was made just now is never cached
        labels, seen = [0] * len(ids), []
        for name in ("first pass", "again, in the same process", "again, in another process"):
            if name.endswith("another process"):
                content._known.clear()
            start = time.perf_counter()
            seen.append(content.of_files(ids, labels, places, cache=root / "cache"))
            seconds = time.perf_counter() - start
            print(f"{name}: {seconds:.2f} s, {1e6 * seconds / len(ids):.0f} µs a file")
        assert len(set(seen)) == 1, seen


if __name__ == "__main__":
    main()
