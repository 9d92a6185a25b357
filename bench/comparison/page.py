"""Markdown tables, and their places on a page that people write."""

from pathlib import Path


def table(head, rows):
    """The first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def update(page, blocks):
    """Puts each block between <!-- figures:NAME --> and <!-- end --> on the page. Throws where it has no such place."""
    path = Path(page)
    text = path.read_text()
    for name, block in blocks.items():
        begin = f"<!-- figures:{name} -->\n"
        if begin not in text:
            raise SystemExit(f"error: {page}: found no line '{begin.strip()}', expected one for these figures")
        before, after = text.split(begin, 1)
        end = after.find("<!-- end -->")
        if end < 0:
            raise SystemExit(f"error: {page}: found no '<!-- end -->' behind '{begin.strip()}'")
        text = before + begin + block.rstrip("\n") + "\n" + after[end:]
    path.write_text(text)
