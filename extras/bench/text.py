"""Figures as text: numbers in few digits, and rows as aligned columns."""

from typing import List


def us(value: float) -> str:
    """Return microseconds, with a decimal place where that says something."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def ms(value: float) -> str:
    """Return milliseconds, with two decimal places where those say something."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def table(rows: List[List[str]]) -> str:
    """Return rows under a heading as aligned text: words to the left, numbers to the right."""
    columns = list(zip(*rows))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell.strip("0123456789,. ()x-") in ("", "-") for cell in column[1:]) for column in columns]
    lines = []
    for row in rows:
        cells = zip(row, widths, right)
        lines.append("  ".join(t.rjust(width) if to_right else t.ljust(width) for t, width, to_right in cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
