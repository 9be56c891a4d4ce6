"""Peak memory of `fit` in addition to its data, which are in memory or in a read-only memmap.

    python examples/benchmarks/memory.py [--rst FILE]

The data are 60,000 x 784 float32 cells, 188 MB. For each case, the script starts a new process,
samples its anonymous memory during the fit, and subtracts the anonymous memory before the fit. The
table shows the largest difference in MB and as a share of the data. Pages of a mapped file are not
anonymous and do not count, but a copy of the file would. The script requires Linux.
"""

import argparse
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _machine import describe_machine
from _table import show

from skae import Autoencoder

N_ROWS, N_COLUMNS = 60_000, 784


def anonymous_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this benchmark reads /proc, which only Linux has")


class Peak:
    """Context manager that measures the largest anonymous memory while its block runs."""

    def __enter__(self):
        self.before = self.bytes = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.002):
            self.bytes = max(self.bytes, anonymous_bytes())

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()


def make_table(kind, folder):
    """Return random rows in [0, 1), in memory or as a read-only memmap."""
    rng = np.random.default_rng(0)
    if kind == "in memory":
        return rng.random((N_ROWS, N_COLUMNS), dtype=np.float32)
    path = Path(folder) / "rows.npy"
    on_disk = np.lib.format.open_memmap(path, "w+", np.float32, (N_ROWS, N_COLUMNS))
    for i in range(0, N_ROWS, 1000):
        on_disk[i : i + 1000] = rng.random((1000, N_COLUMNS), dtype=np.float32)
    on_disk.flush()
    del on_disk
    return np.load(path, mmap_mode="r")


def measure(kind, parameters):
    """Return the bytes that a fit needs at its peak, and the bytes of the data."""
    # The first fit of a process also loads modules, whose memory does not count.
    Autoencoder(2, max_epochs=1).fit(np.random.default_rng(0).random((100, 5)))
    with tempfile.TemporaryDirectory() as folder:
        X = make_table(kind, folder)
        with Peak() as peak:
            Autoencoder(32, max_epochs=2, random_state=0, **parameters).fit(X)
        return peak.bytes - peak.before, X.nbytes


def compare():
    """Yield the caption, the header, and one row per case."""
    yield f"Peak memory of fit in addition to a table of {N_ROWS:,} x {N_COLUMNS} float32 cells"
    yield "storage of the table", "validation rows", "MB", "share of the table"
    for kind in ("in memory", "read-only memmap"):
        for held_out, parameters in (("a tenth", {}), ("none", {"early_stopping": False})):
            # Each fit has a process of its own, because it could reuse memory that an earlier fit
            # has freed.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                above, data = pool.submit(measure, kind, parameters).result()
            yield kind, held_out, f"{above / 1e6:.0f}", f"{above / data:.2f}"


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    show(compare(), ("<22", "<17", ">6", ">20"), "memory.py", arguments.rst)


if __name__ == "__main__":
    main()
