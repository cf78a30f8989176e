"""Takes programs out of documents, as they stand there."""

import pathlib

SEEDS = pathlib.Path(__file__).resolve().parents[3] / "docs" / "seeds"


def program(document, heading, language):
    """The text of the first code block of this language under this heading of the document; there
    must be exactly one such heading."""
    lines = (SEEDS / document).read_text(encoding="utf-8").splitlines(keepends=True)
    places = [number for number, line in enumerate(lines)
              if line.startswith("#") and line.strip("# \n") == heading]
    assert len(places) == 1, f"{len(places)} headings {heading!r} in {document}"
    rest = lines[places[0] + 1:]
    start = next(number for number, line in enumerate(rest) if line.startswith("```"))
    assert rest[start].strip() == "```" + language, rest[start]
    end = next(number for number, line in enumerate(rest) if number > start and line == "```\n")
    return "".join(rest[start + 1:end])
