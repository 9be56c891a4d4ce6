"""Peak memory of `fit` in addition to its data, which are in memory or in a read-only memmap.

    python examples/benchmarks/memory.py [--rst FILE]

The first cases are autoencoders with two epochs. The others are outlier detectors whose default
autoencoder is trained for one epoch, and this autoencoder alone. For each case, the script starts a
new process, samples its anonymous memory during the fit, and subtracts the anonymous memory before
the fit. The table shows the largest difference in MB and as a multiple of the data. Pages of a
mapped file are not anonymous and do not count, but a copy of the file would. The script requires
Linux.
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

from skae import Autoencoder, AutoencoderOutlierDetector
from skae.tasks.outlier import _default_autoencoder

IMAGES = (60_000, 784, "float32")
TABLES = [
    (n_rows, n_columns, dtype)
    for n_rows, n_columns in ((20_000, 2_000), (1_000_000, 30))
    for dtype in ("float32", "float64")
]
"""Tables of the detectors: numbers of rows and columns, and dtypes."""


def make_autoencoder(n_columns, **parameters):
    """Make an autoencoder with 32 components and two epochs."""
    return Autoencoder(32, max_epochs=2, random_state=0, **parameters)


def make_default_of_detector(n_columns):
    """Make the default autoencoder of the detector, with one epoch."""
    # A table of this many rows is large enough for batches.
    autoencoder = _default_autoencoder(20_000, n_columns)
    return autoencoder.set_params(max_epochs=1, trim=0.3, random_state=0)


def make_detector(n_columns):
    """Make an outlier detector."""
    return AutoencoderOutlierDetector(make_default_of_detector(n_columns), random_state=0)


def all_rows(n_columns):
    """Make an autoencoder that holds out no validation rows."""
    return make_autoencoder(n_columns, early_stopping=False)


CASES = [
    *(
        (name, make, IMAGES, storage)
        for storage in ("in memory", "read-only memmap")
        for name, make in (
            ("autoencoder", make_autoencoder),
            ("autoencoder without validation rows", all_rows),
        )
    ),
    *(
        (name, make, table, "in memory")
        for table in TABLES
        for name, make in (
            ("outlier detector", make_detector),
            ("its autoencoder alone", make_default_of_detector),
        )
    ),
]
"""Name of the estimator, function of the number of columns that makes it, table and storage."""


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


def make_table(n_rows, n_columns, dtype, storage, folder):
    """Return random rows in [0, 1), in memory or as a read-only memmap."""
    rng = np.random.default_rng(0)
    path = Path(folder) / "rows.npy"
    shape = n_rows, n_columns
    on_disk = storage == "read-only memmap"
    X = np.lib.format.open_memmap(path, "w+", dtype, shape) if on_disk else np.empty(shape, dtype)
    for i in range(0, n_rows, 1000):
        X[i : i + 1000] = rng.random((1000, n_columns))
    if not on_disk:
        return X
    X.flush()
    return np.load(path, mmap_mode="r")


def measure(make, table, storage):
    """Return the bytes that a fit needs at its peak, and the bytes of the data."""
    # The first fit of a process also loads modules, whose memory does not count.
    small = np.random.default_rng(0).random((300, 5))
    AutoencoderOutlierDetector(Autoencoder(2, max_epochs=1)).fit(small)
    with tempfile.TemporaryDirectory() as folder:
        X = make_table(*table, storage, folder)
        estimator = make(X.shape[1])
        with Peak() as peak:
            estimator.fit(X)
        return peak.bytes - peak.before, X.nbytes


def compare():
    """Yield the caption, the header, and one row per case."""
    yield "Peak memory of fit in addition to its table"
    yield "estimator", "table", "storage", "MB", "multiple of the table"
    for name, make, table, storage in CASES:
        # Each fit has a process of its own, because it could reuse memory that an earlier fit
        # has freed.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            above, data = pool.submit(measure, make, table, storage).result()
        n_rows, n_columns, dtype = table
        shape = f"{n_rows:,} x {n_columns:,} {dtype}"
        yield name, shape, storage, f"{above / 1e6:.0f}", f"{above / data:.2f}"


def main():
    """Print the table and write it if `--rst` is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rst", metavar="FILE", help="where to write the table for the docs")
    arguments = parser.parse_args()
    print(describe_machine())
    show(compare(), ("<37", "<27", "<18", ">5", ">23"), "memory.py", arguments.rst)


if __name__ == "__main__":
    main()
