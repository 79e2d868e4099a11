"""A picture whose two axes have names and whose colours have meanings, for a page or as a file of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image as Pixels
from PIL import ImageDraw, ImageFont

if TYPE_CHECKING:
    from markupsafe import Markup

Colour = tuple[int, int, int]
_SIDE, _MARGIN, _LETTER = 400, 22, 6.2  # units of the drawing on a page; the last is wide enough for a letter
_PAPER, _INK, _LINE = (255, 255, 255), (70, 80, 90), 26  # of the file; pixels of a line of text


@dataclass(frozen=True, slots=True)
class Figure:
    """A square-celled picture; `legend` says what its colours are, a page shows it as it shows a chart."""

    title: str
    picture: Pixels.Image
    across: str
    down: str
    legend: Sequence[tuple[Colour, str]]
    kind: str = field(default="chart", init=False)

    def svg(self) -> "Markup":
        """Return it as inline SVG, followed by its legend."""
        # Here, because pages need more packages than laws.
        from markupsafe import Markup

        from hedgerow.report.page import exact_uri

        high = _SIDE * self.picture.height / self.picture.width
        shown = Markup(
            '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
            '<text x="{margin}" y="14">{across}</text>'
            '<text transform="translate(6 {margin}) rotate(90)">{down}</text>'
            '<image x="{margin}" y="{margin}" width="{side}" height="{high}" href="{source}"/>'
            '<rect x="{margin}" y="{margin}" width="{side}" height="{high}" fill="none" class="grid"/></svg>'
        ).format(
            width=_SIDE + _MARGIN + 1, height=max(high, _LETTER * len(self.down)) + _MARGIN + 1,
            title=self.title, margin=_MARGIN, across=self.across, down=self.down, side=_SIDE, high=high,
            source=exact_uri(self.picture),
        )  # fmt: skip
        meanings = [
            Markup('<span><i style="background:rgb{};outline:1px solid #8a949d"></i>{}</span>').format(*entry)
            for entry in self.legend
        ]
        return Markup("").join([shown, Markup('<div class="legend">'), *meanings, Markup("</div>")])

    def drawn(self) -> Pixels.Image:
        """Return it as an RGB picture, with title and legend written on it."""
        font = ImageFont.load_default(15)
        lines = [self.title, self.across]
        widest = max(font.getlength(text) for text in (*lines, *(text for _, text in self.legend)))
        width, height = self.picture.size
        named = self._written_down(font)
        top, below = _LINE * (len(lines) + 1) - _LINE // 2, _LINE * (len(self.legend) + 1)
        size = max(width, int(widest) + _LINE) + 2 * _LINE, top + max(height, named.height) + below
        whole = Pixels.new("RGB", size, _PAPER)
        pen = ImageDraw.Draw(whole)
        for number, text in enumerate(lines):
            pen.text((_LINE, _LINE // 3 + number * _LINE), text, _INK, font)
        whole.paste(named, (2, top))
        whole.paste(self.picture, (_LINE, top))
        pen.rectangle((_LINE - 1, top - 1, _LINE + width, top + height), outline=_INK)
        for number, (colour, text) in enumerate(self.legend):
            line = whole.height - below + _LINE // 2 + number * _LINE
            pen.rectangle((_LINE, line, _LINE + 14, line + 14), colour, _INK)
            pen.text((2 * _LINE, line - 2), text, _INK, font)
        return whole

    def _written_down(self, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Pixels.Image:
        line = Pixels.new("RGB", (int(font.getlength(self.down)) + 4, _LINE - 4), _PAPER)
        ImageDraw.Draw(line).text((0, 0), self.down, _INK, font)
        return line.transpose(Pixels.Transpose.ROTATE_270)
