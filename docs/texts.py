#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""texts.py SITE: writes SITE/texts.js, the texts of the site's pages by section, which find.js searches."""
import html.parser
import json
import pathlib
import re
import sys

PAGES = ("index", "md_*", "classchatproto*", "structchatproto*", "conceptchatproto*", "namespacechatproto*", "*_8hpp")
VOID = {"area", "br", "hr", "img", "input", "link", "meta"}
INLINE = {"a", "b", "code", "em", "span", "strong"}
# Doxygen's classes of what is no text, or stands elsewhere on the page too.
REPEATED = {"toc", "ttc", "memberdecls", "memproto", "mlabels", "permalink", "dynheader", "dyncontent"}
NAME, BRIEF = {"memItemRight", "memTemplItemRight"}, {"mdescRight"}  # of a member, in the table memberdecls


class Page(html.parser.HTMLParser):
    """A page's title, and its sections: each an anchor, a heading and a text."""

    def __init__(self, text):
        super().__init__()
        self.title, self.anchor, self.heading = "", "", ""
        self.is_brief = False  # whether the member has only a brief description: its anchor is in the table
        self.sections = [["", "", ""]]
        self.open = [("", "")]  # the elements around: each its tag and the kind of its text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        names, kind = set((attributes.get("class") or "").split()), self.open[-1][1]
        if tag in ("iframe", "object", "script", "style") or names & REPEATED:
            kind = "none"
        elif "title" in names:
            kind = "title"
        elif "contents" in names or self.is_brief and names & BRIEF:
            kind = "text"
        elif kind == "text" and tag in ("h1", "h2", "h3", "h4") or self.is_brief and names & NAME:
            kind = "heading"
        if tag == "tr":
            self.is_brief = self.is_brief and (attributes.get("class") or "").startswith("memdesc:")
        if tag == "a" and "id" in attributes:
            self.anchor = attributes["id"]  # stands in the heading or before it
            self.is_brief = kind == "none"
        if tag not in INLINE:
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append((tag, kind))

    def handle_endtag(self, tag):
        while any(tag == each for each, _ in self.open):  # Doxygen closes some that are not open
            closed, kind = self.open.pop()
            if kind == "heading" and self.open[-1][1] != "heading":
                if self.anchor == "details":  # which repeat what stands above them
                    self.sections = [section for section in self.sections if section[0]]
                    self.heading = ""
                self.sections.append([self.anchor, self.heading, ""])
                self.anchor = self.heading = ""
            if closed == tag:
                break
        if tag not in INLINE:
            self.handle_data(" ")

    def handle_data(self, data):
        kind = self.open[-1][1]
        self.title += data if kind == "title" else ""
        self.heading += data if kind == "heading" else ""
        self.sections[-1][2] += data if kind == "text" else ""


def texts(site):
    for path in sorted({path for pattern in PAGES for path in site.glob(pattern + ".html")}):
        if path.stem.endswith("-members"):
            continue
        page = Page(path.read_text(encoding="utf-8").partition("<hr/>The documentation for this ")[0])
        name = re.sub(r" (Class|Struct|Concept|Namespace|File)( Template)? Reference *$", "", page.title)
        for anchor, heading, text in page.sections:
            title = [" ".join(part.split()) for part in (name, heading)]
            repeated = path.stem.endswith("_8hpp") and anchor != "details"  # also on its namespace's page
            if text.split() and not repeated:
                yield [path.name + (anchor and "#" + anchor), " › ".join(filter(None, title)), " ".join(text.split())]


folder = pathlib.Path(sys.argv[1])
rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in texts(folder))
(folder / "texts.js").write_text(f"const texts = [\n{rows}];\n", encoding="utf-8")
