#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Tests the verdict: right histories, seeded ones among them, must pass, and each kind of wrong one must be found."""
import collections
import random
import sys

from history import ERR, NO_REPLY, OK, Connection, Findings, Span, Text, judge, spans_of

failures = 0


def expect(condition, what):
    global failures
    if not condition:
        failures += 1
        print(f"FAILED: {what}")


def expect_verdict(what, texts, spans, breaches=(), cut=0, away=0):
    """The kinds of breaches must be these and no others."""
    findings = judge(texts, spans)
    found = {kind for kind, count in findings.breaches.items() if count}
    expect(found == set(breaches), f"{what}: found {dict(findings.examples) or 'nothing'}, not {breaches or 'nothing'}")
    expect(breaches or (findings.cut, findings.away) == (cut, away),
           f"{what}: {findings.cut} and {findings.away} are missing, not {cut} and {away}")


def text(sender, number, sent, answered=None, to=None, outcome=None, connection=1):
    if outcome is None:
        outcome = NO_REPLY if answered is None else OK
    return Text(b"%s:%d" % (sender.encode(), number), sender, to, connection, number, sent, outcome, answered or 0.0)


def span(receiver, join_sent, joined, keys, end, left=True, marks=None, name=None):
    keys = [key.encode() for key in keys.split()]
    return Span(receiver, name or receiver, "room", join_sent, joined, keys, marks or [(len(keys), end - 0.01)], left,
                end)


def by_hand():
    # Two senders; each text is sent after the ok of the one before.
    talk = [text("a", 0, 1.0, 1.1), text("b", 0, 1.2, 1.3), text("a", 1, 1.4, 1.5), text("b", 1, 1.6, 1.7)]
    whole = "a:0 b:0 a:1 b:1"

    def check(what, keys, breaches=(), **missing):
        expect_verdict(what, talk, [span("r", 0.1, 0.2, whole, 3.0), span("q", 0.1, 0.2, keys, 3.0)], breaches,
                       **missing)

    check("all is well", whole)
    check("one is missing in the middle", "a:0 b:0 b:1", ["lost"])
    check("the first is missing", "b:0 a:1 b:1", ["lost"])
    check("the last is missing", "a:0 b:0 a:1", ["lost"])
    check("all are missing", "", ["lost"])
    check("one comes twice in a row", "a:0 b:0 b:0 a:1 b:1", ["doubled"])
    check("one comes again later", "a:0 b:0 a:1 b:1 a:0", ["doubled"])
    check("a sender's texts change places", "a:1 b:0 a:0 b:1", ["order"])
    check("texts of two senders change places", "b:0 a:0 a:1 b:1", ["order"])
    check("one was never sent", "a:0 b:0 c:7 a:1 b:1", ["invented"])
    check("one is garbled", "a:0 b:0 a:1x b:1", ["invented", "lost"])

    # A receiver that is cut.
    def cut(what, keys, end, breaches=(), left=False, **missing):
        expect_verdict(what, talk, [span("r", 0.1, 0.2, whole, 3.0),
                                    span("q", 0.1, 0.2, keys, end, left, [(len(keys.split()), min(end, 1.8))])],
                       breaches, **missing)

    cut("it is cut before the last", "a:0 b:0 a:1", 3.0, cut=1)
    cut("it is cut before all", "", 3.0, cut=4)
    cut("it is cut, and one is missing in the middle", "a:0 a:1", 3.0, ["lost"])
    cut("it is cut before the last was sent", "a:0 b:0 a:1", 1.55, away=1)
    cut("it leaves before the last was sent", "a:0 b:0 a:1", 1.55, left=True, away=1)
    cut("it leaves before the last had its ok", "a:0 b:0 a:1", 1.65, left=True, away=1)
    cut("it leaves after the ok of the last", "a:0 b:0 a:1", 1.75, ["lost"], left=True)

    # A receiver that comes back.
    def back(what, first, second, join_sent, joined, breaches=(), left=False, **missing):
        expect_verdict(what, talk, [span("r", 0.1, 0.2, whole, 3.0), span("q", 0.1, 0.2, first, 1.35, left),
                                    span("q", join_sent, joined, second, 3.0)], breaches, **missing)

    back("it comes back in time", "a:0 b:0", "a:1 b:1", 1.36, 1.37)
    back("it comes back while one is under way", "a:0 b:0", "b:1", 1.42, 1.55, away=1)
    back("it comes back while one is under way, and gets it", "a:0 b:0", "a:1 b:1", 1.42, 1.55)
    back("it comes back too late", "a:0 b:0", "", 2.0, 2.1, away=2)
    back("one is missing that was sent after it came back", "a:0 b:0", "b:1", 1.36, 1.37, ["lost"])
    back("one comes on both connections", "a:0 b:0", "b:0 a:1 b:1", 1.36, 1.37, ["doubled", "stale"])
    back("one comes that had its ok before the join", "a:0", "b:0 a:1 b:1", 1.36, 1.37, ["order", "stale"])
    back("nobody knows whether it was there", "a:0", "a:1 b:1", 1.36, 1.37, cut=1)
    back("one is missing although it left later", "a:0", "a:1 b:1", 1.36, 1.37, ["lost"], left=True)

    # Texts that nobody has got.
    def nobody(what, spans, breaches=(), **missing):
        expect_verdict(what, talk, spans, breaches, **missing)

    nobody("nobody was there", [], away=0)
    nobody("nobody had come back yet",
           [span("r", 0.1, 0.2, "a:0", 1.15, False), span("r", 2.0, 2.1, "", 3.0)], away=3)
    nobody("all were cut after the ok, and had not got it",
           [span("r", 0.1, 0.2, "a:0 b:0 a:1", 2.5, False), span("r", 2.6, 2.7, "", 3.0)], cut=1)
    nobody("one is lost between its ok and all receivers",
           [span("r", 0.1, 0.2, "a:0 b:0 b:1", 3.0), span("q", 0.1, 0.2, "a:0 b:0 b:1", 3.0)], ["lost"])
    nobody("the last is lost between its ok and all receivers",
           [span("r", 0.1, 0.2, "a:0 b:0 a:1", 3.0), span("q", 0.1, 0.2, "a:0 b:0 a:1", 3.0)], ["lost"])
    nobody("one is lost, and then all are cut", [span("r", 0.1, 0.2, "a:0 b:0 b:1", 3.0, False)], ["lost"])

    # Texts under way together, in any order that is the same for all.
    both = [text("a", 0, 1.0, 1.5), text("b", 0, 1.1, 1.4), text("a", 1, 1.0, 1.5), text("b", 1, 1.1, 1.4)]
    expect_verdict("any one order", both, [span("r", 0.1, 0.2, "b:0 a:0 b:1 a:1", 3.0),
                                          span("q", 0.1, 0.2, "b:0 a:0 b:1 a:1", 3.0)])
    expect_verdict("two orders", both, [span("r", 0.1, 0.2, "b:0 a:0 b:1 a:1", 3.0),
                                        span("q", 0.1, 0.2, "a:0 b:0 b:1 a:1", 3.0)], ["order"])
    expect_verdict("two orders, of texts far apart", both, [span("r", 0.1, 0.2, "a:0 a:1 b:0 b:1", 3.0),
                                                            span("q", 0.1, 0.2, "b:0 b:1 a:0 a:1", 3.0)], ["order"])
    expect_verdict("no two share two texts, and yet there is no order",
                   [text("a", 0, 1.0, 2.0), text("b", 0, 1.0, 2.0), text("c", 0, 1.0, 2.0)],
                   [span("r", 0.1, 0.2, "a:0 b:0", 2.5, False), span("q", 0.1, 0.2, "b:0 c:0", 2.5, False),
                    span("p", 0.1, 0.2, "c:0 a:0", 2.5, False)], ["order"])

    # Who a text is for.
    told = [text("a", 0, 1.0, 1.1, to="r"), text("a", 1, 1.2, 1.3), text("b", 0, 1.4, 1.5)]
    everybody = [span("r", 0.1, 0.2, "a:0 a:1 b:0", 3.0), span("q", 0.1, 0.2, "a:1 b:0", 3.0)]
    expect_verdict("a text for one", told, everybody)
    expect_verdict("one of the sender's name", told, everybody + [span("x", 0.1, 0.2, "b:0", 3.0, name="a")])
    expect_verdict("a text for another", told, [everybody[0], span("q", 0.1, 0.2, "a:0 a:1 b:0", 3.0)], ["invented"])
    expect_verdict("an own text", told, [*everybody, span("x", 0.1, 0.2, "a:1 b:0", 3.0, name="a")], ["invented"])
    expect_verdict("a text for one is missing", told, [span("r", 0.1, 0.2, "a:1 b:0", 3.0), everybody[1]], ["lost"])
    expect_verdict("two of one name", told, [*everybody, span("x", 0.1, 0.2, "a:0 a:1 b:0", 3.0, name="r")])
    expect_verdict("two of one name, and one gets nothing", told,
                   [*everybody, span("x", 0.1, 0.2, "a:1 b:0", 3.0, name="r")], ["lost"])

    # Texts without ok.
    unsure = [text("a", 0, 1.0, 1.1), text("a", 1, 1.2), text("a", 2, 1.4, 1.5, connection=2),
              text("b", 0, 1.2, 1.3, outcome=ERR)]
    expect_verdict("nobody has got the one without a reply", unsure, [span("r", 0.1, 0.2, "a:0 a:2", 3.0)])
    expect_verdict("all have got the one without a reply", unsure, [span("r", 0.1, 0.2, "a:0 a:1 a:2", 3.0)])
    expect_verdict("it is late, after its connection", unsure, [span("r", 0.1, 0.2, "a:0 a:2 a:1", 3.0)])
    expect_verdict("it is late for one", unsure, [span("r", 0.1, 0.2, "a:0 a:2 a:1", 3.0),
                                                  span("q", 0.1, 0.2, "a:0 a:1 a:2", 3.0)], ["order"])
    expect_verdict("one has got the one without a reply", unsure,
                   [span("r", 0.1, 0.2, "a:0 a:1 a:2", 3.0), span("q", 0.1, 0.2, "a:0 a:2", 3.0)], ["lost"])
    expect_verdict("it comes twice", unsure, [span("r", 0.1, 0.2, "a:0 a:1 a:1 a:2", 3.0)], ["doubled"])
    expect_verdict("a refused one comes", unsure, [span("r", 0.1, 0.2, "a:0 b:0 a:2", 3.0)], ["denied"])
    expect_verdict("one comes before it was sent", [text("a", 0, 1.0, 1.1)],
                   [span("r", 0.1, 0.2, "a:0", 3.0, marks=[(1, 0.9)])], ["invented", "order"])


def wire():
    """What came over the wire becomes spans."""
    def parse(data, marks, *commands, end=9.0):
        findings = Findings()
        commands = [(float(at), *command) for at, command in enumerate(commands)]
        return spans_of(Connection("r", "r", commands, data, marks, end), findings), dict(findings.breaches)

    login, cafe, bar, leave = ("login", None), ("join", "cafe"), ("join", "bar"), ("quit", None)
    found, breaches = parse(b"ok:\nok:joined\ndelivery:cafe:a:0\ndelivery:cafe:a:1\ndelivery:cafe:a:2\nok:bye\n",
                            [(3, 1.5), (6, 2.5)], login, cafe, leave)
    expect(found == [Span("r", "r", "cafe", 1.0, 1.5, [b"a:0", b"a:1", b"a:2"], [(1, 1.5), (3, 2.5)], True, 2.0)]
           and not breaches, f"a stay: {found} {breaches}")
    found, breaches = parse(b"ok:\nok:joined\ndelivery:cafe:a:0\ndelivery:ca", [(2, 1.5), (3, 2.5)], login, cafe)
    expect(found == [Span("r", "r", "cafe", 1.0, 1.5, [b"a:0"], [(1, 2.5)], False, 9.0)] and not breaches,
           f"a stay that is cut: {found} {breaches}")
    data = b"ok:\nok:joined\ndelivery:cafe:a:0\nerr:no\ndelivery:cafe:a:1\nok:joined\ndelivery:bar:b:0\n"
    found, breaches = parse(data, [(7, 3.5)], login, cafe, bar, bar)
    expect(found == [Span("r", "r", "cafe", 1.0, 3.5, [b"a:0", b"a:1"], [(1, 3.5), (2, 3.5)], True, 3.0),
                     Span("r", "r", "bar", 3.0, 3.5, [b"b:0"], [(1, 3.5)], False, 9.0)] and not breaches,
           f"a move that is refused, and one that is not: {found} {breaches}")
    found, breaches = parse(b"ok:\nok:joined\ndelivery:cafe:a:0\n", [(3, 1.5)], login, cafe, ("end", None))
    expect(found == [Span("r", "r", "cafe", 1.0, 1.5, [b"a:0"], [(1, 1.5)], True, 2.0)] and not breaches,
           f"a stay that ends with the input: {found} {breaches}")
    expect(parse(b"ok:\nerr:no\n", [(2, 1.5)], login, cafe) == ([], {}), "a join that is refused")
    expect(parse(b"ok", [], login, cafe) == ([], {}), "a broken reply")
    for what, data, kind in [
            ("a delivery before the join", b"ok:\ndelivery:cafe:a:0\nok:joined\n", "invented"),
            ("a delivery of another room", b"ok:\nok:joined\ndelivery:bar:a:0\n", "invented"),
            ("a delivery after quit", b"ok:\nok:joined\nok:bye\ndelivery:cafe:a:0\n", "invented"),
            ("a reply too many", b"ok:\nok:joined\nok:bye\nok:bye\n", "protocol"),
            ("no reply at all", b"ok:\nok:joined\nwhat is this\n", "protocol")]:
        _, breaches = parse(data, [(data.count(b"\n"), 1.5)], login, cafe, leave)
        expect(set(breaches) == {kind}, f"{what}: {breaches}")
    # A text of another room, in the right order and under its own room's name, is in no span of this room.
    found, _ = parse(b"ok:\nok:joined\ndelivery:cafe:a:0\nok:joined\ndelivery:bar:a:1\n", [(5, 2.5)], login, cafe, bar)
    expect([span.keys for span in found] == [[b"a:0"], [b"a:1"]], "two rooms")


class Chat:
    """A right chat in one room, whose clock goes on with each step."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.now = 0.0
        self.log = []  # (text without its outcome, ...)
        self.texts = {}
        self.senders = {name: 0 for name in "abc"}
        self.under_way = collections.deque()  # sent, not stored
        self.connection = collections.Counter("abc")
        self.receivers = {name: None for name in "pqr"}  # [join_sent, joined, place in the log, keys, marks]
        self.spans = []
        for _ in range(self.dice.randrange(20, 150)):
            self.step()
        for name in self.receivers:
            self.leave(name, True)

    def tick(self):
        self.now += self.dice.choice([0.0, 0.001, 0.01])
        return self.now

    def step(self):
        dice = self.dice
        what = dice.randrange(12)
        if what < 4:  # some texts of a sender, at once
            sender = dice.choice("abc")
            at = self.tick()
            for _ in range(dice.randrange(1, 4)):
                number = self.senders[sender]
                self.senders[sender] += 1
                to = dice.choice([None, None, "p", "q", "nobody"])
                self.texts[sender, number] = text(sender, number, at, to=to, connection=self.connection[sender])
                self.under_way.append((sender, number))
        elif what < 7:  # some are stored; replies come now, later or never
            for _ in range(min(len(self.under_way), dice.randrange(1, 6))):
                one = self.under_way.popleft()
                self.log.append(one)
                self.texts[one] = self.texts[one]._replace(outcome=OK, answered=self.now + 0.001)
            self.now += 0.002
        elif what == 7 and self.under_way:  # the first one's sender is cut, or all its texts are refused
            sender = self.under_way[0][0]
            lost = [one for one in self.under_way if one[0] == sender]
            self.under_way = collections.deque(one for one in self.under_way if one[0] != sender)
            refused, stored = dice.random() < 0.5, dice.randrange(len(lost) + 1)
            self.now += 0.002
            for place, one in enumerate(lost):
                if refused:
                    self.texts[one] = self.texts[one]._replace(outcome=ERR, answered=self.now)
                elif place < stored:
                    self.log.append(one)
            self.connection[sender] += 1
        elif what < 10:
            name = dice.choice("pqr")
            if self.receivers[name] is None:
                join_sent = self.tick()
                self.now += 0.001
                self.receivers[name] = [join_sent, self.now, len(self.log), [], []]
            else:
                self.deliver(name, dice.randrange(1, 30))
        elif what == 10:
            self.leave(dice.choice("pqr"), False)
        else:
            self.leave(dice.choice("pqr"), True)

    def deliver(self, name, most):
        stay = self.receivers[name]
        while most and stay[2] < len(self.log):
            one = self.log[stay[2]]
            stay[2] += 1
            most -= 1
            if self.texts[one].to in (None, name):
                stay[3].append(self.texts[one].key)
        self.now += 0.001
        stay[4].append((len(stay[3]), self.now))

    def leave(self, name, left):
        stay = self.receivers[name]
        if stay is None:
            return
        end = self.tick()
        if left:
            self.deliver(name, -1)
        join_sent, joined, _, keys, marks = stay
        self.spans.append(Span(name, name, "room", join_sent, joined, keys, marks, left, self.now if not left else end))
        self.receivers[name] = None
        self.now += 0.001

    def judged(self, spans=None):
        return judge(list(self.texts.values()), self.spans if spans is None else spans)


def seeded(count):
    spoilt, found, full = collections.Counter(), collections.Counter(), 0
    for seed in range(count):
        chat = Chat(seed)
        right = chat.judged()
        expect(not right.breaches, f"seed {seed}: {dict(right.examples)}")
        full += right.delivered > 20
        # Wrong ones: in a span that is long enough, something is changed.
        dice = random.Random(seed)
        long = [number for number, one in enumerate(chat.spans) if len(one.keys) > 2]
        if not long:
            continue
        number = dice.choice(long)
        one = chat.spans[number]
        at = dice.randrange(1, len(one.keys) - 1)
        late = [(len(one.keys) + 1, max(time for _, time in one.marks))]
        for kind, keys in [("lost", one.keys[:at] + one.keys[at + 1:]),
                           ("doubled", one.keys[:at] + one.keys[at - 1:]),
                           ("order", one.keys[:at - 1] + [one.keys[at], one.keys[at - 1]] + one.keys[at + 1:]),
                           ("invented", one.keys[:at] + [b"a:999"] + one.keys[at:])]:
            spoilt[kind] += 1
            wrong = one._replace(keys=keys, marks=[(len(keys), late[0][1])])
            findings = chat.judged(chat.spans[:number] + [wrong] + chat.spans[number + 1:])
            found[kind] += kind in findings.breaches
    expect(full > count / 4, f"only {full} of {count} histories are worth it")
    # What only one receiver saw, of texts under way together, may have been in any order, and a text without ok that
    # nobody else has got need not have been stored.
    for kind, least in ("doubled", 1.0), ("invented", 1.0), ("lost", 0.8), ("order", 0.5):
        expect(found[kind] >= least * spoilt[kind] > 20, f"{kind} was found in {found[kind]} of {spoilt[kind]}")


by_hand()
wire()
seeded(400)
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
