"""What a browser would make of a page, by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br", "hr"}
SVG_VOID = {"path", "rect", "image"}


class Parsed(HTMLParser):
    """Every tag with its attributes, the text of every tag, and whether all that was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of a name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self) -> str:
        """All text but the style sheet."""
        return " ".join(data for tag, data in self.texts if tag != "style")


def require_inert(html: str) -> Parsed:
    """Asserts that a page runs nothing, asks for nothing and is well formed."""
    page = Parsed(html)
    assert not page.open
    assert not {name for name, _ in page.tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
    }
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in ("src", "href", "srcset", "action", "xlink:href"):
                assert (value or "").startswith(("data:image/png;", "data:image/jpeg;", "#")), (tag, value)
    assert all(c.isprintable() or c == "\n" for c in html)
    return page
