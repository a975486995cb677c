# SPDX-License-Identifier: BSL-1.0
"""The matrix of submissions and rules, and a page for each submission: HTML that needs no script and no other file."""
import os
import re
import statistics
from html import escape
from urllib.parse import quote

from reports import other_tests, problem_lines, rule_lines, test_lines
from judging import first_errors

SIGNS = {"passed": ("\u2713", "passed"), "failed": ("\u2717", "failed"), "unchecked": ("?", "could not be checked"),
         "skipped": ("\u2013", "not counted")}
MOST = 6  # how many different answers are shown for one scene

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1b1b; --dim: #595959; --line: #c4c4c4; --head: #f1f1f1;
  --link: #0b4fa8; --passed: #e2f3e4; --on-passed: #17551f; --failed: #f9d5d2; --on-failed: #85110c;
  --unchecked: #ffeec2; --on-unchecked: #5c4300; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e8e8e8; --dim: #a9a9a9; --line: #4a4d52;
  --head: #24272b; --link: #8ab8ff; --passed: #14341b; --on-passed: #a3e2ab; --failed: #54171a; --on-failed: #ffc2bd;
  --unchecked: #413300; --on-unchecked: #ffdb7a; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--page); color: var(--text); font: 1rem/1.45 system-ui, sans-serif; }
h1, h2, h3, h4 { line-height: 1.2; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
h4 { font-size: .95rem; font-weight: normal; margin: .75rem 0 .25rem; }
p, ul, ol { margin: .4rem 0; max-width: 60rem; overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 1px; }
code, pre { font-family: ui-monospace, monospace; font-size: .85rem; }
pre { background: var(--head); border: 1px solid var(--line); padding: .5rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.matrix { max-height: 92vh; overflow: auto; border: 1px solid var(--line); width: fit-content; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; }
caption { text-align: left; padding: .4rem; position: sticky; left: 0; max-width: 90vw; }
th, td { border-right: 1px solid var(--line); border-bottom: 1px solid var(--line); padding: 0; font-weight: normal; }
thead th { position: sticky; top: 0; z-index: 1; background: var(--head); vertical-align: bottom;
  padding: .3rem .1rem; }
thead th span.name { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 15rem; line-height: 1.15;
  text-align: left; font-size: .85rem; display: inline-block; }
thead th b { display: block; text-align: center; }
thead th:first-child { left: 0; z-index: 2; text-align: left; padding: .3rem .5rem; }
tbody th, tfoot th { position: sticky; left: 0; background: var(--head); text-align: left; padding: 0 .5rem;
  max-width: 16rem; overflow-wrap: anywhere; line-height: 1.2; }
td { text-align: center; min-width: 1.9rem; height: 1.9rem; }
td.number, th.number { padding: 0 .5rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td a { display: block; line-height: 1.9rem; text-decoration: none; }
td a:hover { text-decoration: underline; }
.passed, .passed a { background: var(--passed); color: var(--on-passed); }
.failed, .failed a { background: var(--failed); color: var(--on-failed); font-weight: bold; }
.unchecked, .unchecked a { background: var(--unchecked); color: var(--on-unchecked); font-weight: bold; }
.skipped a { color: var(--dim); }
.key span { padding: 0 .4rem; white-space: nowrap; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
.rule { border-top: 1px solid var(--line); }
.rule:target, .test:target { outline: 3px solid var(--link); outline-offset: 4px; }
.sign { padding: 0 .4rem; margin-right: .3rem; }
@media (max-width: 45rem) {
  body { padding: .5rem; }
  .of { display: none; }
  tbody th, tfoot th { max-width: 8rem; font-size: .85rem; padding: 0 .25rem; }
  thead th span.name { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
}
@media print { .matrix { max-height: none; overflow: visible; } }
"""


def text(value):
    """Escapes a text for HTML. It may be a file name that is not valid Unicode."""
    return escape(value.encode(errors="replace").decode())


def page(title, body):
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">\n'
            f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n")


def address(graded, anchor=""):
    return quote(os.fsencode(graded.folder)) + "/index.html" + ("#" + quote(anchor) if anchor else "")


def link(graded, anchor, label):
    return f'<a href="{address(graded, anchor)}">{label}</a>'


# --- The matrix -------------------------------------------------------------------------------------------------------

def matrix_row(graded):
    cells = []
    for number, rule in enumerate(graded.rules, 1):
        sign, word = SIGNS[rule["status"]]
        label = f'<span aria-hidden="true">{sign}</span><span class="hidden">{word}</span>'
        cells.append(f'<td class="{rule["status"]}">{link(graded, f"rule-{number}", label)}</td>')
    mark = (' <span class="failed"><span aria-hidden="true">!</span><span class="hidden">see below</span></span>'
            if graded.problem or graded.kit_error else "")
    return (f'<tr><th scope="row">{link(graded, "", text(graded.name))}{mark}</th>'
            f'<td class="number">{graded.score}<span class="of"> / {graded.max_score}</span></td>{"".join(cells)}</tr>')


def matrix_table(all_graded, rules):
    heads = "".join(
        f'<th scope="col" title="{text(rule["name"])}"><span class="name">{text(rule["name"])}</span>'
        f"<b>{number}</b></th>"
        for number, rule in enumerate(rules, 1))
    earned = "".join(f'<td>{sum(graded.rules[i]["status"] == "passed" for graded in all_graded)}</td>'
                     for i in range(len(rules)))
    rows = "\n".join(map(matrix_row, all_graded))
    return (f'<div class="matrix" tabindex="0" role="region" aria-label="Matrix">\n<table>\n'
            f'<caption>Submissions and rules. Each cell leads to what happened.</caption>\n'
            f'<thead><tr><th scope="col">Submission</th><th scope="col" class="number">Points</th>{heads}</tr>\n'
            "</thead>\n"
            f'<tbody>\n{rows}\n</tbody>\n'
            f'<tfoot><tr><th scope="row">passed</th><td></td>{earned}</tr></tfoot>\n</table>\n</div>')


def names_of(some):
    """Links to submissions, from (submission, anchor)."""
    links = ", ".join(link(graded, anchor, text(graded.name)) for graded, anchor in some)
    return links if len(some) <= 8 else f"<details><summary>{len(some)} submissions</summary>{links}</details>"


def shape(told):
    """What was expected and what came, without the room names that are made up for each play."""
    joined = "|".join(set(re.findall(r"\bjoin:([a-z0-9]{8})\b", "\n".join(told))) | {r"(?=[a-z]*\d)[a-z0-9]{8}"})

    def part(word):
        found = next((line.partition(" ")[2].strip() for line in told if line.startswith(word + " ")), "")
        found = re.sub(rf"\b(?:{joined})\b", "{room}", found)
        return found if len(found) <= 160 else found[:157] + "..."
    return part("expected"), part("came") or " ".join(told[-1:])[:160]


def causes(all_graded):
    """Scenes that failed: {name: {shape: [(submission, anchor)]}}, with an example of each scene."""
    scenes, example = {}, {}
    for graded in all_graded:
        for test in graded.report["tests"]:
            if test["status"] == "failed":
                some = scenes.setdefault(test["name"], {})
                some.setdefault(shape(test["told"]), []).append((graded, "test-" + test["name"]))
                example.setdefault(test["name"], test)
    return scenes, example


def rules_of(graded):
    """The rule of each test, with its number. The plan knows only of scenes."""
    return {name: (number, rule) for number, rule in enumerate(graded.rules, 1) for name in rule["tests"]}


def causes_part(all_graded):
    scenes, example = causes(all_graded)
    where = {name: rule for graded in all_graded for name, rule in rules_of(graded).items()}
    parts = ['<h2 id="causes">What failed, by cause</h2>']
    if not scenes:
        parts.append("<p>No scene failed.</p>")
    for name, shapes in sorted(scenes.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0])):
        test, count = example[name], sum(map(len, shapes.values()))
        number, rule = where.get(name, (0, None))
        parts.append(f'<h3>{count} of {len(all_graded)}: {text(test["title"])}</h3>\n<p class="dim">scene '
                     f'<code>{text(name)}</code>'
                     + (f', rule {number}, {text(rule["name"])}' if rule else ", without points") + "</p>")
        parts.append("<ul>")
        ordered = sorted(shapes.items(), key=lambda item: -len(item[1]))
        for (expected, came), some in ordered[:MOST]:
            instead = f' instead of <code>{text(expected)}</code>' if expected else ""
            parts.append(f"<li><code>{text(came)}</code>{instead}: {names_of(some)}</li>")
        rest = [one for _, some in ordered[MOST:] for one in some]
        parts.append((f"<li>something else: {names_of(rest)}</li>" if rest else "") + "</ul>")
    return parts


def unchecked_part(all_graded):
    whys = {}
    for graded in all_graded:
        where = rules_of(graded)
        for test in graded.report["tests"]:
            if test["status"] == "unchecked":
                anchor = f'rule-{where[test["name"]][0]}' if test["name"] in where else ""
                whys.setdefault(test["why"], {}).setdefault(graded.name, [graded, anchor, 0])[2] += 1
    if not whys:
        return []
    parts = ['<h2 id="unchecked">What could not be checked</h2>', "<p>These scenes neither passed nor failed.</p>",
             "<ul>"]
    for why, some in sorted(whys.items(), key=lambda item: -len(item[1])):
        links = ", ".join(f'{link(graded, anchor, text(graded.name))} ({count} scene{"s" if count > 1 else ""})'
                          for graded, anchor, count in some.values())
        parts.append(f"<li>{text(why)}: {links}</li>")
    return [*parts, "</ul>"]


def problems_part(all_graded):
    parts = []
    for graded in all_graded:
        if graded.problem or graded.kit_error:
            lines = problem_lines(graded)
            parts.append(f'<h3>{link(graded, "", text(graded.name))}</h3>\n<p>{text(lines[0])}</p>'
                         + (f"<pre>{text(chr(10).join(lines[1:]))}</pre>" if lines[1:] else ""))
    return ['<h2 id="problems">Not built, not started, not graded</h2>', *parts] if parts else []


def matrix(all_graded, plan, notes):
    rules, title = plan["rules"], plan.get("title") or "Results"
    key = " ".join(f'<span class="{status}">{sign} {word}</span>' for status, (sign, word) in SIGNS.items())
    legend = "".join(f'<li>{text(rule["name"])} <span class="dim">({rule["max_score"]} points)</span></li>'
                     for rule in rules)
    points = [graded.score for graded in all_graded]
    middle = f", median {statistics.median(points):.10g} points" if points else ""
    problems = problems_part(all_graded)
    unchecked = unchecked_part(all_graded)
    parts = ['<a class="skip" href="#causes">To what failed, by cause</a>', f"<main><h1>{text(title)}</h1>",
             f'<p>{len(all_graded)} submissions{middle}. <a href="points.csv">points.csv</a> has the points. '
             + "".join(f'<a href="#{anchor}">{label}</a>. ' for anchor, label, there in (
                 ("problems", "Not built or not started", problems), ("causes", "What failed, by cause", True),
                 ("unchecked", "What could not be checked", unchecked)) if there) + "</p>",
             *(f"<p>{text(note)}</p>" for note in notes),
             f"<details><summary>The rules and their points</summary><ol>{legend}</ol></details>",
             f'<p class="key">{key}</p>', matrix_table(all_graded, rules), *problems,
             *causes_part(all_graded), *unchecked, "</main>"]
    return page(title, "\n".join(parts))


# --- One submission ---------------------------------------------------------------------------------------------------

def transcript(test):
    name, lines = text(test["name"]), test_lines(test)[1:]
    section = f', section {text(test["section"])}' if test["section"] else ""
    return (f'<div class="test" id="test-{name}"><h4>{text(test["title"])} '
            f'<span class="dim"><code>{name}</code>{section}</span></h4>'
            f"\n<pre>{text(chr(10).join(line[2:] for line in lines))}</pre></div>")


def rule_part(graded, number, rule):
    sign, word = SIGNS[rule["status"]]
    tests = graded.tests()
    chosen = [tests[name] for name in rule["tests"] if name in tests]
    parts = [f'<section class="rule" id="rule-{number}"><h3><span class="sign {rule["status"]}">{sign} {word}</span>'
             f'{number} {text(rule["name"])} <span class="dim">{rule["score"]} of {rule["max_score"]} points</span>'
             "</h3>"]
    if rule["status"] == "passed":
        names = [test["name"] for test in chosen if test["status"] == "passed"]
        parts.append(f'<p class="dim">passed: {text(", ".join(names))}</p>')
    for test in chosen:
        if test["status"] == "failed":
            parts.append(transcript(test))
    rest = rule_lines({**rule, "tests": [test["name"] for test in chosen if test["status"] != "failed"]}, tests)
    if rest:
        parts.append(f'<p>{"<br>".join(map(text, rest))}</p>')
    return "\n".join([*parts, "</section>"])


def submission(graded):
    title = f"{graded.name}: {graded.score} of {graded.max_score} points"
    problem = problem_lines(graded)
    others = other_tests(graded)
    parts = ['<nav><a href="../index.html">All submissions</a></nav>', f"<main><h1>{text(title)}</h1>",
             '<p><a href="feedback.txt">feedback.txt</a> is the same as text, for the student. '
             '<a href="report.json">report.json</a> is what chatproto-conformance wrote.</p>']
    if problem:
        parts.append(f"<p><strong>{text(problem[0])}</strong></p>")
        parts += [f"<pre>{text(chr(10).join(problem[1:]))}</pre>"] if problem[1:] else []
    parts += [f"<p>{text(note)}</p>" for note in graded.notes]
    if any(rule["status"] == "failed" for rule in graded.rules):
        parts.append('<p class="dim">x -&gt; what client x of the test sent; x &lt;- what it got; '
                     "* stands for any bytes</p>")
    for status, head in (("failed", "What failed"), ("unchecked", "What could not be checked"),
                         ("passed", "What passed"), ("skipped", "What was not counted")):
        some = [rule_part(graded, number, rule) for number, rule in enumerate(graded.rules, 1)
                if rule["status"] == status]
        parts += [f'<h2 id="{status}">{head}</h2>', *some] if some else []
    if others:
        parts.append("<h2>What failed besides, without points</h2>")
        parts += map(transcript, others)
    for name, log in (("build.log", graded.build), ("server.log", graded.server)):
        if log:
            lines = first_errors(log, 40) if name == "build.log" else log.splitlines()[:40]
            parts.append(f'<h2>{"The build" if name == "build.log" else "What the server printed"}</h2>\n'
                         f'<pre>{text(chr(10).join(lines))}</pre>\n<p><a href="{name}">All of it</a></p>')
    return page(title, "\n".join([*parts, "</main>"]))
