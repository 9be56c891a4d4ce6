"""The same rows as aligned text and as a table that the documentation includes."""

from pathlib import Path

from _machine import describe_machine


def aligned(cells, formats):
    """One line of text, each cell by its format, such as "<24" or ">9"."""
    return "".join(f"{cell:{form}}" for cell, form in zip(cells, formats, strict=True))


def write_rst(path, script, caption, header, rows):
    """Write rows, whose cells are texts, as a list-table that names the script and the machine."""
    lines = [
        f".. Written by examples/benchmarks/{script}, not by hand.",
        "",
        f".. list-table:: {caption}",
        "   :header-rows: 1",
        "   :widths: auto",
        "",
    ]
    for cells in (header, *rows):
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(cells)]
    lines += ["", f"Measured on {describe_machine()}.", ""]
    Path(path).write_text("\n".join(lines), encoding="utf-8")


def show(table, formats, script, rst=None):
    """Print a table, its caption, header and rows as they come, and write it if told where."""
    caption = next(table)
    print(f"\n{caption}")
    rows = []
    for cells in table:
        rows.append(cells)
        print(aligned(cells, formats), flush=True)
    if rst:
        write_rst(rst, script, caption, rows[0], rows[1:])
