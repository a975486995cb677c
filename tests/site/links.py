#!/usr/bin/env python3
"""links.py SITE: checks that each link, anchor, image, script and style within SITE has a target. Fetches nothing.

Reads the pages, the pictures (*.svg), and the scripts that Doxygen makes for its menu and its search.
links.py --self-test: checks that dead links are found."""
import html.parser
import pathlib
import re
import sys
import tempfile
import urllib.parse

# Doxygen's scripts contain their link targets as whole strings.
IN_SCRIPT = re.compile(r"""["']((?:\.\./)?[\w./-]+\.html(?:#[\w.:-]+)?)["']""")
MADE = re.compile(r"^search/\w+_\w+\.js$|^\w+\.js$")  # the menu and the search results


class Page(html.parser.HTMLParser):
    """The anchors of a page or picture, and its link targets with their lines."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src", "data", "xlink:href") and value is not None:
                self.links.append((self.getpos()[0], value))
            elif name == "srcset":
                self.links += [(self.getpos()[0], part.split()[0]) for part in value.split(",")]


def check(site):
    """Returns a site's dead links, as text, and how many pages and links there are."""
    pages = {}
    for path in sorted(site.rglob("*")):
        if path.name == "doxygen.svg":  # Doxygen's logo
            continue
        if path.suffix in (".html", ".svg"):
            pages[path] = Page(path.read_text(encoding="utf-8"))
        elif MADE.search(path.relative_to(site).as_posix()) and not path.name.startswith("navtreeindex"):
            pages[path] = script = Page("")
            # What follows NAVTREEINDEX tells where the parts of the index begin, and is no link.
            text, _, _ = path.read_text(encoding="utf-8").partition("NAVTREEINDEX")
            for number, line in enumerate(text.splitlines(), 1):
                script.links += [(number, link) for link in IN_SCRIPT.findall(line)]
    dead, count = [], 0
    for path, page in pages.items():
        for line, link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("http", "https", "mailto", "javascript", "data"):
                    dead.append(f"{path.relative_to(site)}:{line}: {link}: what is that?")
                continue
            count += 1
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if site not in target.parents or not target.is_file():
                dead.append(f"{path.relative_to(site)}:{line}: {link}: there is no such file")
            elif anchor and anchor not in pages.get(target, Page("")).anchors:
                dead.append(f"{path.relative_to(site)}:{line}: {link}: there is no such place in it")
    return dead, sum(path.suffix == ".html" for path in pages), count


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        site = pathlib.Path(folder).resolve()
        (site / "a.html").write_text('<a href="b.html#here">x</a><img src="a.svg">'
                                      '<a href="https://example.org/no">x</a>'
                                     '<a href="#up" id="up">x</a>', encoding="utf-8")
        (site / "b.html").write_text('<h1 id="here"></h1>', encoding="utf-8")
        (site / "a.svg").write_text('<svg><a xlink:href="b.html"></a></svg>', encoding="utf-8")
        (site / "navtreedata.js").write_text('[ "x", "b.html#here" ]; NAVTREEINDEX = [ "b.html#x" ]', encoding="utf-8")
        dead, pages, links = check(site)
        assert (dead, pages, links) == ([], 2, 5), (dead, pages, links)
        for name, text in (("a.html", '<a href="c.html">x</a>'), ("a.html", '<a href="b.html#there">x</a>'),
                           ("a.html", '<img src="b.svg">'), ("a.html", '<a href="../a.html">x</a>'),
                           ("a.html", '<a href="file:///etc">x</a>'),
                           ("a.svg", '<svg><a xlink:href="c.html"></a></svg>'),
                           ("navtreedata.js", '[ "x", "b.html#there" ]')):
            before = (site / name).read_text(encoding="utf-8")
            (site / name).write_text(text, encoding="utf-8")
            dead = check(site)[0]
            assert len(dead) == 1, (text, dead)
            (site / name).write_text(before, encoding="utf-8")
    print("finds what is dead")


if sys.argv[1:] == ["--self-test"]:
    self_test()
elif len(sys.argv) == 2:
    found, pages_seen, links_seen = check(pathlib.Path(sys.argv[1]).resolve())
    print(*found, f"{pages_seen} pages, {links_seen} links, {len(found)} of them dead", sep="\n")
    sys.exit(1 if found or not pages_seen else 0)
else:
    sys.exit(__doc__)
