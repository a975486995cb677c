#!/bin/sh
# sh filter.sh AWK FILTER: checks what docs/filter.awk makes of a page, and that it rejects a diagram that it would draw
# wrongly.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fence='```'

cat >"$scratch/page.md" <<END
# Title

A [header](../include/chatproto/server_options.hpp), an [example](examples/echo_service.hpp), \`one\`, \`'two'\`, \
**\`three\`: bold**, **bold**.

${fence}mermaid
sequenceDiagram
    participant a as "A"
    a->>b: hey: "you"
    b-->>a: ok:
    Note over a,b: both
${fence}

${fence}mermaid
flowchart LR
    subgraph g["group"]
        x["a \`x\`"] -->|why| y
    end
    y -.-> z["Z"]
${fence}

${fence}cpp
// [header](../include/chatproto/peer.hpp)
# no title
${fence}
END
cat >"$scratch/expected" <<END
# Title

[TOC]

A [header](server__options_8hpp.html), an [example](echo_service_8hpp-example.html), \`one\`, \`\`'two'\`\`, \
<b>\`three\`: bold</b>, **bold**.

\\msc
wordwraparcs=true;
a [label="\\"A\\""];
a=>b [label="hey: \\"you\\""];
b>>a [label="ok:"];
a box b [label="both"];
\\endmsc

\\dot
digraph {
rankdir=LR; node [shape=box fontname=Helvetica fontsize=10 height=0.3]; \
edge [fontname=Helvetica fontsize=9]; fontname=Helvetica; fontsize=10;
subgraph cluster_g {
label="group";
x [label="a \`x\`"];
}
z [label="Z"];
x -> y [ label=" why"];
y -> z [style=dashed];
}
\\enddot

${fence}cpp
// [header](../include/chatproto/peer.hpp)
# no title
${fence}
END
"$1" -f "$2" "$scratch/page.md" >"$scratch/made"
diff -u "$scratch/expected" "$scratch/made"

for bad in 'sequenceDiagram
a->b: another arrow' 'sequenceDiagram
loop every minute' 'flowchart LR
x(["another shape"]) --> y' 'pie title Pets'; do
  printf '# Title\n%smermaid\n%s\n%s\n' "$fence" "$bad" "$fence" >"$scratch/page.md"
  if "$1" -f "$2" "$scratch/page.md" >/dev/null 2>"$scratch/why"; then
    echo "not refused: $bad"
    exit 1
  fi
  grep -q 'page.md:' "$scratch/why"
done
printf '# Title\n%scpp\n' "$fence" >"$scratch/page.md"
if "$1" -f "$2" "$scratch/page.md" >/dev/null 2>&1; then
  echo 'not refused: a block without an end'
  exit 1
fi
