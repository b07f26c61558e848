"""How results look in a notebook: HTML of a table, a picture, a text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from PIL import Image


def table_html(rows: Sequence[Mapping[str, str]]) -> str:
    """Column -> text of each row."""
    import pandas

    return pandas.DataFrame(rows).to_html(index=False, border=0)


def picture_html(picture: Image.Image, text: str) -> str:
    """The picture in the page itself. text: what it shows, for those who cannot see it."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'


def text_html(text: str) -> str:
    """Lines as they are printed."""
    return f"<pre>{html.escape(text)}</pre>"


def link_html(address: str, text: str) -> str:
    """A line with a link in front. address: path of a file, from the notebook's folder."""
    link = f'<a href="{quote(address)}">{html.escape(address)}</a>'
    return f"<p>{link}{html.escape(text)}</p>"
