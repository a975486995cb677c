# SPDX-License-Identifier: BSL-1.0
"""What senders and receivers saw, and the verdict on it.

A history is a list of texts (what became of each, as its sender saw it) and of spans (what a receiver got in one room
from a join to the end of that stay). All times are of one steady clock, which all processes of a machine share. A time
is taken before something is sent, and after something has arrived, so what seems to be earlier really was earlier.

The verdict follows from what is certain alone. All texts of a room are nodes of a graph, and so are the moments of its
history; an edge means "comes before in the log of the room". Edges are:
- two texts that follow each other at a receiver, or on one connection of a sender;
- the moment before a text was sent, then the text, then the moment after its ok, or after a receiver had it;
- each moment, then the next one; the moment before a receiver sent its join, then the first text that it got.
A cycle is a breach of the one order. A text belongs to a span for certain if there is a path to it from the ok of the
join or the first text of the span, and one from it to the last text of the span, or to the moment before the receiver
asked to leave (if the server answered that). Such a text must be in the span. Any other text may be missing.
"""
import bisect
import collections

NO_REPLY, OK, ERR = range(3)
NEVER = float("inf")
EXAMPLES = 4  # of each kind of breach

# key: b"SENDER:TEXT", as it is delivered; to: name of the only receiver that it is for, or None; connection: number of
# the sender's connection; number: of the text, increasing; outcome: NO_REPLY, OK or ERR; answered: time of the reply.
Text = collections.namedtuple("Text", "key sender to connection number sent outcome answered")

# keys: what was delivered; marks: [(number of keys that had arrived, time)]; left: whether the server answered the end
# of the stay by ok, and it was asked for at `end`. Otherwise the connection had broken by the time `end`.
Span = collections.namedtuple("Span", "receiver name room join_sent joined keys marks left end")

# What a receiver's connection saw: commands: [(time, "login" or "join" or "quit" or "end", room)] in order, where "end"
# is the end of its input, and is there only if the server's own end can be nothing but the answer to that; data: all
# that the server sent; marks: [(number of lines that had arrived, time)]; end: time at which the connection had ended.
Connection = collections.namedtuple("Connection", "receiver name commands data marks end")


class Findings:
    def __init__(self):
        self.breaches = collections.Counter()
        self.examples = collections.defaultdict(list)
        self.cut = 0  # pairs of text and receiver: it was in the room, and was cut before it got the text
        self.away = 0  # pairs: the receiver was not there, or had not come back yet
        self.deaf = 0.0  # longest time from the ok of a text until a receiver that never got it was cut
        self.delivered = 0
        self.resumed = {}  # sender or receiver: when its first text that was sent after the fault had arrived

    def add(self, kind, example, count=1):
        self.breaches[kind] += count
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(example)

    def merge(self, other):
        self.breaches.update(other.breaches)
        for kind, examples in other.examples.items():
            self.examples[kind] = (self.examples[kind] + examples)[:EXAMPLES]
        self.cut += other.cut
        self.away += other.away
        self.deaf = max(self.deaf, other.deaf)
        self.delivered += other.delivered
        for who, time in other.resumed.items():
            self.resumed[who] = min(time, self.resumed.get(who, NEVER))


def spans_of(connection, findings):
    """Returns the spans that a receiver's connection consists of."""
    lines = connection.data.split(b"\n")
    lines.pop()  # an incomplete last line, or nothing
    counts = [count for count, _ in connection.marks]
    found = []
    stay = None  # [room, join_sent, joined, keys, marks]

    def take(first, last):
        """The deliveries in these lines belong to the current stay."""
        if first == last:
            return
        if stay is None:
            findings.add("invented", f"{connection.receiver} got {lines[first][:80]!r} in no room", last - first)
            return
        room, _, _, keys, marks = stay
        prefix = b"delivery:%s:" % room.encode()
        wrong = [line for line in lines[first:last] if not line.startswith(prefix)]
        if wrong:
            findings.add("invented", f"{connection.receiver} in {room} got {wrong[0][:80]!r}", len(wrong))
        before = len(keys) - first
        mark = bisect.bisect_right(counts, first)
        while mark < len(counts) and counts[mark] < last:
            marks.append((before + counts[mark], connection.marks[mark][1]))
            mark += 1
        marks.append((before + last, connection.marks[mark][1]))
        keys.extend([line[len(prefix):] for line in lines[first:last]])

    def leave(left, end):
        found.append(Span(connection.receiver, connection.name, *stay, left, end))

    first = 0  # line after the last reply
    for number, line in enumerate([at for at, text in enumerate(lines) if not text.startswith(b"delivery:")]):
        take(first, line)
        first = line + 1
        ok = lines[line].startswith(b"ok:")
        if number >= len(connection.commands) or not ok and not lines[line].startswith(b"err:"):
            findings.add("protocol", f"{connection.receiver} got {lines[line][:80]!r} for nothing")
            continue
        sent, kind, room = connection.commands[number]
        if ok and kind != "login":
            if stay is not None:
                leave(True, sent)
            stay = None
            if kind == "join":
                stay = [room, sent, connection.marks[bisect.bisect_right(counts, line)][1], [], []]
    take(first, len(lines))
    if stay is not None and connection.commands[-1][1] == "end":
        leave(True, connection.commands[-1][0])
    elif stay is not None:
        leave(False, connection.end)
    return found


def judge(texts, spans, fault_end=None):
    """Returns the findings on one room: all texts that were sent to it, and all spans that receivers were in it."""
    findings = Findings()
    index = {text.key: i for i, text in enumerate(texts)}
    if len(index) != len(texts):
        raise ValueError("texts must differ")
    sent = [text.sent for text in texts]
    answered = [text.answered if text.outcome == OK else NEVER for text in texts]
    names = {span.name for span in spans}
    meant = {name: bytearray(text.to == name if text.to is not None else text.sender != name for text in texts)
             for name in names}
    denied = bytearray(text.outcome == ERR for text in texts)
    stored = bytearray(text.outcome == OK for text in texts)
    sources = {}
    source = [sources.setdefault((text.sender, text.connection), len(sources)) for text in texts]

    def name(i):
        if i >= len(texts):
            return f"moment {moments[i - len(texts)][0]:.6f}"
        return texts[i].key[:40].decode(errors="replace")

    # --- What each span shows by itself, and the receivers' order
    seen = {span.receiver: bytearray(len(texts)) for span in spans}
    chains = []
    for span in spans:
        where = f"{span.receiver} (joined at {span.joined:.3f})"
        ids = [index.get(key, -1) for key in span.keys]
        findings.delivered += len(ids)
        if -1 in ids:
            at = ids.index(-1)
            findings.add("invented", f"{where} got {span.keys[at][:60]!r}", ids.count(-1))
        right = meant[span.name]
        for i in [i for i in ids if i >= 0 and not right[i]]:
            findings.add("invented", f"{where} got {name(i)}, which is for {texts[i].to or 'others'}")
        for i in [i for i in ids if i >= 0 and denied[i]]:
            findings.add("denied", f"{where} got {name(i)}, whose sender got err")
        for i in [i for i in ids if i >= 0 and answered[i] < span.join_sent]:
            early = span.join_sent - answered[i]
            findings.add("stale", f"{where} got {name(i)}, which had its ok {early:.6f} s before that join was sent")
        first = 0
        for last, time in span.marks:
            for i in [i for i in ids[first:last] if sent[i] > time and i >= 0]:
                findings.add("invented", f"{where} got {name(i)} before it was sent")
            first = last
        had = seen[span.receiver]
        latest = [-1] * len(sources)
        for at, i in enumerate(ids):
            if i < 0:
                continue
            if had[i]:
                ids[at] = -1
                findings.add("doubled", f"{where} got {name(i)} again")
                continue
            had[i] = stored[i] = 1
            if texts[i].number < latest[source[i]]:
                findings.add("order", f"{where} got {name(i)} after number {latest[source[i]]}")
            latest[source[i]] = texts[i].number
        chains.append(ids)
        if fault_end is not None:
            fresh = next((at for at, i in enumerate(ids) if i >= 0 and sent[i] >= fault_end), None)
            if fresh is not None:
                time = next(time for count, time in span.marks if count > fresh)
                findings.resumed[span.receiver] = min(time, findings.resumed.get(span.receiver, NEVER))
            first = 0
            for last, time in span.marks:
                if time >= fault_end:
                    for i in ids[first:last]:
                        if i >= 0 and sent[i] >= fault_end and answered[i] < NEVER:
                            whole = max(time, answered[i])
                            if whole < findings.resumed.get(texts[i].sender, NEVER):
                                findings.resumed[texts[i].sender] = whole
                first = last

    # --- The graph. At the same time, what was about to be sent comes before what had arrived.
    moments = {(time, 0) for i, time in enumerate(sent) if stored[i]}
    moments.update((time, 1) for time in answered if time < NEVER)
    for span in spans:
        moments.add((span.join_sent, 0))
        moments.add((span.joined, 1))
        if span.left:
            moments.add((span.end, 0))
        moments.update((time, 1) for _, time in span.marks)
    moments = sorted(moments)
    count = len(texts)
    moment = {key: count + i for i, key in enumerate(moments)}
    after = [[] for _ in range(count)]
    after += [[count + i + 1] for i in range(len(moments))]
    if moments:
        after[-1].clear()
    begins = [0] * len(after)  # bits of the spans that begin before this node or with it
    ends = [0] * len(after)  # bits of those that end after it or with it
    got = [0] * count
    latest = [-1] * len(sources)
    for i in sorted((i for i in range(count) if stored[i]), key=lambda i: texts[i].number):
        after[moment[sent[i], 0]].append(i)
        if answered[i] < NEVER:
            after[i].append(moment[answered[i], 1])
        if latest[source[i]] >= 0:
            after[latest[source[i]]].append(i)
        latest[source[i]] = i
    of_receiver = collections.defaultdict(int)
    of_name = collections.defaultdict(int)
    for number, (span, ids) in enumerate(zip(spans, chains)):
        bit = 1 << number
        of_receiver[span.receiver] |= bit
        of_name[span.name] |= bit
        begins[moment[span.joined, 1]] |= bit
        if span.left:
            ends[moment[span.end, 0]] |= bit
        first = 0
        for last, time in span.marks:
            if last > first and ids[last - 1] >= 0:
                after[ids[last - 1]].append(moment[time, 1])
            first = last
        ids = [i for i in ids if i >= 0]
        if not ids:
            continue
        begins[ids[0]] |= bit
        ends[ids[-1]] |= bit
        after[moment[span.join_sent, 0]].append(ids[0])
        previous = -1
        for i in ids:
            got[i] |= bit
            if previous >= 0 and i not in after[previous]:
                after[previous].append(i)
            previous = i

    # --- An order that fits everything, if there is one
    waits = [0] * len(after)
    for successors in after:
        for node in successors:
            waits[node] += 1
    ready = [node for node in range(len(after)) if not waits[node]]
    order = []
    while ready:
        node = ready.pop()
        order.append(node)
        bits = begins[node]
        for successor in after[node]:
            begins[successor] |= bits
            waits[successor] -= 1
            if not waits[successor]:
                ready.append(successor)
    for node in reversed(order):
        bits = ends[node]
        for successor in after[node]:
            bits |= ends[successor]
        ends[node] = bits
    if len(order) < len(after):
        cycle = a_cycle(after, waits)
        findings.add("order", " before ".join(name(node) for node in cycle), sum(node < count for node in cycle))

    # --- What is missing
    spans_for = {}  # of a sender and an addressee: bits of all spans that the text is for
    receivers_for = {}
    names_of = {span.receiver: span.name for span in spans}
    for i, text in enumerate(texts):
        if not stored[i]:
            continue
        pair = (text.sender, text.to)
        if pair not in spans_for:
            for_it = [name for name in names if (text.to == name if text.to is not None else text.sender != name)]
            spans_for[pair] = sum(of_name[name] for name in for_it)
            receivers_for[pair] = [(of_receiver[who], who) for who in of_receiver if names_of[who] in for_it]
        missed = begins[i] & ends[i] & spans_for[pair] & ~got[i]
        while missed:
            bit = missed & -missed
            missed ^= bit
            span = spans[bit.bit_length() - 1]
            how = "left" if span.left else "was cut"
            reply = f"its ok came at {answered[i]:.6f}" if text.outcome == OK else "no reply"
            findings.add("lost", f"{span.receiver} (joined at {span.joined:.6f}, {how} at {span.end:.6f}, "
                         f"{len(span.keys)} texts) has not got {name(i)} (sent at {sent[i]:.6f}, {reply}; "
                         f"{'others have got it' if got[i] else 'nobody has got it'})")
        if text.outcome != OK:
            continue
        for bits, _ in receivers_for[pair]:
            if got[i] & bits:
                continue
            was_there = begins[i] & bits
            late = NEVER
            while was_there:
                bit = was_there & -was_there
                was_there ^= bit
                span = spans[bit.bit_length() - 1]
                if not span.left and span.end >= sent[i]:
                    late = min(late, span.end - answered[i])
            if late < NEVER:
                findings.cut += 1
                findings.deaf = max(findings.deaf, late)
            else:
                findings.away += 1
    return findings


def a_cycle(after, waits):
    """Returns the nodes of a cycle. It is among those that still wait for others."""
    before = {}
    for node, successors in enumerate(after):
        if waits[node]:
            for successor in successors:
                before.setdefault(successor, node)
    node = next(node for node in before if waits[node])
    place = {}
    path = []
    while node not in place:
        place[node] = len(path)
        path.append(node)
        node = before[node]
    return path[:place[node] - 1 if place[node] else None:-1]
