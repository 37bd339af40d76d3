"""Small PDF files, written by hand as the standard has them: pages of text, an outline, a title."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_pdf(
    path: Path,
    pages: Sequence[str],
    *,
    title: str = "",
    headings: Sequence[tuple[str, int]] = (),
    box: tuple[float, float] = (300, 400),
    extra: str = "",
) -> Path:
    """A PDF with a line of text on each page.

    Args:
        path: The file.
        pages: Their texts.
        title: In the document's information.
        headings: The outline: title and index of the page.
        box: Width and height of a page in points.
        extra: Put into the trailer, such as an entry ``/Encrypt``.
    """
    first_page, first_heading = 5, 5 + 2 * len(pages)
    kids = " ".join(f"{first_page + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>",
        f"<< /Title ({title}) >>",
        f"<< /Type /Outlines /Count {len(headings)} /First {first_heading} 0 R "
        f"/Last {first_heading + len(headings) - 1} 0 R >>"
        if headings
        else "<< /Type /Outlines >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 20 350 Td ({text}) Tj ET"
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {box[0]} {box[1]}] /Resources {font} "
            f"/Contents {first_page + 2 * number + 1} 0 R >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    for number, (heading, page) in enumerate(headings):
        following = f"/Next {first_heading + number + 1} 0 R" if number + 1 < len(headings) else ""
        objects.append(f"<< /Title ({heading}) /Parent 4 0 R /Dest [{first_page + 2 * page} 0 R /Fit] {following} >>")
    body, places = "%PDF-1.4\n", []
    for number, item in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{item}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info 3 0 R {extra} >>"
    path.write_text(
        f"{body}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n{trailer}\nstartxref\n{len(body)}\n%%EOF\n",
        encoding="latin-1",
    )
    return path
