# awk -f filter.awk PAGE.md: converts a page, which GitHub reads as it is in the repository, for Doxygen.
#
# - Mermaid's diagrams, which GitHub draws, become \msc (a sequenceDiagram) and \dot (a flowchart), which Doxygen draws.
#   Only the parts of Mermaid's language that the pages use are known; anything else is an error.
# - Links to headers and examples become links to their pages.
# - A page with several sections gets a table of contents. The README, whose title is that of the main page, gets
#   a different title.

function fail(why) {
  print FILENAME ":" FNR ": " why ": " $0 > "/dev/stderr"
  print "\\not_understood"  # Doxygen ignores the exit code, but fails on this
  failed = 1
  exit 1
}
function label(text) {
  gsub(/"/, "\\\"", text)
  return "[label=\"" text "\"]"
}
# Removes the first `pattern` from `text`, which is global, and returns it.
function take(pattern, found) {
  if (!match(text, "^(" pattern ")")) return ""
  found = substr(text, 1, RLENGTH)
  text = substr(text, RLENGTH + 1)
  return found
}

function sequence(from, arrow, to) {
  text = $0
  sub(/^ +/, "", text)
  if (take("participant ") != "") {
    from = take("[a-z]+")
    participants = participants (participants == "" ? "" : ", ") from " " label(take(" as ") != "" ? text : from)
  } else if (take("Note over ") != "") {
    from = take("[a-z]+")
    to = take(",") != "" ? take("[a-z]+") : from
    if (take(": ") == "") fail("no text")
    arcs = arcs from " box " to " " label(text) ";\n"
  } else {
    from = take("[a-z]+")
    arrow = take("->>|-->>|-x")
    to = take("[a-z]+")
    if (from == "" || arrow == "" || to == "" || take(": ") == "") fail("not understood")
    arcs = arcs from (arrow == "->>" ? "=>" : arrow == "-x" ? "-x" : ">>") to " " label(text) ";\n"
  }
}

function node(name) {
  name = take("[a-z]+")
  if (name == "") fail("not understood")
  if (take("\\[\"") != "") {
    nodes = nodes name " " label(substr(text, 1, index(text, "\"]") - 1)) ";\n"
    text = substr(text, index(text, "\"]") + 2)
  }
  return name
}
function flow(from, arrow, to, why) {
  text = $0
  sub(/^ +/, "", text)
  if (text == "end") {
    nodes = nodes "}\n"
  } else if (take("subgraph ") != "") {
    nodes = nodes "subgraph cluster_" take("[a-z]+") " {\n"
    if (take("\\[\"") == "") fail("no title")
    nodes = nodes "label=\"" substr(text, 1, index(text, "\"]") - 1) "\";\n"
  } else {
    from = node()
    while (text != "") {
      arrow = take(" --> | -\\.-> | -->\\|")
      if (arrow == "") fail("not understood")
      why = ""
      if (arrow ~ /\|/) {
        why = " label=\" " substr(text, 1, index(text, "|") - 1) "\""
        text = substr(text, index(text, "|") + 2)
      }
      to = node()
      arcs = arcs from " -> " to " [" (arrow ~ /\./ ? "style=dashed" : "") why "];\n"
      from = to
    }
  }
}

# Doxygen takes an apostrophe in `code` for the end of a quotation, but not in ``code``; it does not recognise `code`
# next to **.
function quoted(line, result, span) {
  result = ""
  while (match(line, /\*\*[^*]*`[^*]*\*\*/)) {
    result = result substr(line, 1, RSTART - 1) "<b>" substr(line, RSTART + 2, RLENGTH - 4) "</b>"
    line = substr(line, RSTART + RLENGTH)
  }
  line = result line
  result = ""
  while (match(line, /`[^`]+`/)) {
    span = substr(line, RSTART, RLENGTH)
    if (index(span, "'")) span = "`" span "`"
    result = result substr(line, 1, RSTART - 1) span
    line = substr(line, RSTART + RLENGTH)
  }
  return result line
}

# Converts a link to a file of the repository that has its own page.
function linked(line, rest, name, example, result) {
  result = ""
  if (FILENAME ~ /examples\/README.md$/)  # its links are relative to its folder
    gsub(/\]\((embed\/)?[a-z_]+\.[ch]pp\)/, "](examples/&", line)
  gsub(/\]\(examples\/\]\((embed\/)?/, "](examples/", line)
  while (match(line, /\]\((\.\.\/)*(include\/chatproto|examples)\/[a-z_]+\.[a-z]+\)/)) {
    rest = substr(line, RSTART + RLENGTH)
    name = substr(line, RSTART + 2, RLENGTH - 3)
    result = result substr(line, 1, RSTART - 1) "]("
    line = rest
    example = name ~ /examples\//
    sub(/.*\//, "", name)
    if (!example) gsub(/_/, "__", name)
    sub(/\./, "_8", name)
    result = result name (example ? "-example" : "") ".html)"
  }
  line = result line
  sub(/\]\(LICENSE\)/, "](./LICENSE)", line)  # to Doxygen a bare word is not a link
  return line
}

/^```mermaid$/ {
  kind = "mermaid"
  participants = nodes = arcs = ""
  next
}
kind == "mermaid" && ($1 == "sequenceDiagram" || $1 == "flowchart") {
  kind = $1
  direction = $2
  next
}
/^```$/ && kind == "sequenceDiagram" {
  # As lines of Doxygen's own comments: nothing here may be taken for Markdown.
  printf "\\msc\nwordwraparcs=true;\n%s;\n%s\\endmsc\n", participants, arcs
  kind = ""
  next
}
/^```$/ && kind == "flowchart" {
  printf "\\dot\ndigraph {\nrankdir=%s; node [shape=box fontname=Helvetica fontsize=10 height=0.3]; " \
         "edge [fontname=Helvetica fontsize=9]; fontname=Helvetica; fontsize=10;\n%s%s}\n\\enddot\n",
         direction, nodes, arcs
  kind = ""
  next
}
kind == "mermaid" { fail("not a diagram that is known") }
kind == "sequenceDiagram" { sequence(); next }
kind == "flowchart" { flow(); next }
/^```/ { kind = kind == "" ? "code" : "" }
kind == "code" { print; next }
/^# / && !titled {
  titled = 1
  if (FILENAME ~ /\/README\.md$/ && FILENAME !~ /(conformance|examples)\//) $0 = "# README"
  print
  if (FILENAME !~ /\/index\.md$/) print "\n[TOC]"
  next
}
{ print quoted(linked($0)) }
END { if (!failed && kind != "") fail("a block has no end") }
