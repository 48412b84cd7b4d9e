"""Print a report's page as PDF: the same page, with a running header and footer, and fonts that travel with it.

PlutoPrint lays out HTML and CSS without a browser, system libraries or a network. Its fonts would be those of the
machine; the DejaVu fonts that come with matplotlib (free licence) hold Greek, umlauts and the signs of a report, so
these are handed over and embedded, and a machine without any font prints the same.
"""

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plutoprint

_FACES = (
    ("Report", 400, "DejaVuSans.ttf"),
    ("Report", 700, "DejaVuSans-Bold.ttf"),
    ("Report Mono", 400, "DejaVuSansMono.ttf"),
)
_PAGE = """
body { font-family: "Report"; } code { font-family: "Report Mono"; }
* { font-variant-ligatures: none; }
@page {
  size: A4; margin: 19mm 13mm 17mm;
  @top-left { content: %(label)s; font: 8px "Report"; color: #5b6b7b; width: 70%%; }
  @top-right { content: "RESEARCH USE ONLY"; font: bold 8px "Report"; color: #7a1f00; }
  @bottom-left { content: %(foot)s; font: 8px "Report"; color: #5b6b7b; width: 70%%; }
  @bottom-right { content: "page " counter(page) " of " counter(pages); font: 8px "Report"; color: #5b6b7b; }
}
"""
_LONGEST_LABEL = 90


@cache
def _font_faces() -> str:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return "".join(
        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; src: url("data:font/ttf;base64,'
        f'{base64.b64encode((folder / file).read_bytes()).decode()}"); }}\n'
        for family, weight, file in _FACES
    )


def css_text(text: str) -> str:
    """Return any text as a string of CSS, cut to what one line of a header holds."""
    cut = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
    return '"' + "".join(c if c.isalnum() or c in " .,:;-_·…()%" else f"\\{ord(c):x} " for c in cut) + '"'


def write_pdf(html: str, path: Path, title: str, foot: str, date: str) -> None:
    """Print a page.

    Parameters
    ----------
    html
        The page; everything it shows is part of it, and anything else is refused.
    path
        The file to write.
    title
        Name of the plan, for the header of every page.
    foot
        Text for the footer of every page.
    date
        Date of the document, ISO 8601; so the same page gives the same bytes.
    """
    import plutoprint

    book = plutoprint.Book(
        plutoprint.PAGE_SIZE_A4, plutoprint.PAGE_MARGINS_NORMAL, plutoprint.MEDIA_TYPE_PRINT
    )
    book.custom_resource_fetcher = _only_what_the_page_holds()
    style = _font_faces() + _PAGE % {"label": css_text(title), "foot": css_text(foot)}
    book.load_html(html, user_style=style)
    book.set_metadata(plutoprint.PDF_METADATA_TITLE, title)
    book.set_metadata(plutoprint.PDF_METADATA_SUBJECT, "Research use only")
    book.set_metadata(plutoprint.PDF_METADATA_CREATOR, "nightbeam")
    for when in (plutoprint.PDF_METADATA_CREATION_DATE, plutoprint.PDF_METADATA_MODIFICATION_DATE):
        book.set_metadata(when, date)
    book.write_to_pdf(path)


def _only_what_the_page_holds() -> "plutoprint.ResourceFetcher":
    import plutoprint

    class DataOnly(plutoprint.ResourceFetcher):  # type: ignore[misc, unused-ignore]
        """Gives out data that lies in the page, and neither files nor addresses."""

        def fetch_url(self, url: str) -> "plutoprint.ResourceData":
            if not url.startswith("data:"):
                raise ValueError(f"a report refers to nothing outside of itself, but this one to {url[:60]}")
            return plutoprint.default_resource_fetcher.fetch_url(url)

    return DataOnly()
