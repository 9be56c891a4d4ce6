"""Tables that are printed as aligned text and written as reStructuredText."""

from pathlib import Path

from _machine import describe_machine


def aligned(cells, formats):
    """Return one line of text, with a format such as "<24" or ">9" for each cell."""
    return "".join(
        f"{cell:{cell_format}}" for cell, cell_format in zip(cells, formats, strict=True)
    )


def write_rst(path, script, caption, header, rows):
    """Write rows of strings as a list-table, with the name of the script and the machine."""
    lines = [
        f".. Written by examples/benchmarks/{script}, not by hand.",
        "",
        f".. list-table:: {caption}",
        "   :header-rows: 1",
        "   :widths: auto",
        "",
    ]
    for cells in (header, *rows):
        # A bare dash would begin a list.
        texts = [r"\-" if cell == "-" else cell for cell in cells]
        lines += [f"   {'*' if i == 0 else ' '} - {text}" for i, text in enumerate(texts)]
    lines += ["", f"Measured on {describe_machine()}.", ""]
    Path(path).write_text("\n".join(lines), encoding="utf-8")


def show(table, formats, script, rst=None):
    """Print a table as its rows are computed, and write it to the file `rst` unless it is None.

    The iterator `table` yields the caption, the header and the rows.
    """
    caption = next(table)
    print(f"\n{caption}")
    rows = []
    for cells in table:
        rows.append(cells)
        print(aligned(cells, formats), flush=True)
    if rst:
        write_rst(rst, script, caption, rows[0], rows[1:])
