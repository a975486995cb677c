# A chat server and its clients as a course sets them: no senduser, and receivers only receive. What the text of the
# exercise asks for gives points. What it leaves to the implementer is not played, or is shown and does not count.
# The rules about the server add up to 100 points, and 10 more if races are looked for. Those about the two clients add
# up to 100.
title: Assignment: chat server
line-ends: either
prompts: anywhere

rule: 10 Senders and receivers log in
scenes: basics-sender basics-receiver basics-company login-sender login-receiver names-not-unique names-user-case
scenes: names-of-tags
open: names-good because no name that is used in a test has to be that long
rule: 5 A first message that is no login gets an err
scenes: login-bad-err
rule: 10 Senders and receivers join rooms, which are made when they are needed
scenes: basics-join sender-join-again sender-join-makes-room sender-join-moves names-room-*
open: names-bad-room names-bad-room-none sender-join-bad-stays because names in tests are letters and digits
rule: 8 Senders leave rooms
scenes: sender-leave-none sender-leave-then-text sender-join-leave
open: sender-leave-payload because it carries bytes that are no ASCII
rule: 12 A text reaches every receiver in the room, once, except those of the sender's own name
scenes: basics-delivery sendall-several sendall-not-own-name sendall-exactly-own-name
scenes: promises-many-receivers promises-many-texts
open: sendall-nobody sendall-empty because nothing is said about an empty text
rule: 8 A text reaches no other room, and nobody who joins later
scenes: promises-rooms-apart receiver-no-history promises-registered-before-ok
rule: 5 A text is kept as it is
scenes: lines-payload-colons lines-payload-printable lines-payload-blanks
open: lines-payload-control lines-payload-high-bytes lines-payload-nul lines-payload-cr because messages are ASCII text
open: lines-payload-cr-cr because nothing is said about several of them
rule: 5 A line ends in \n or \r\n
scenes: lines-lf lines-crlf lines-mixed-ends
rule: 7 Bytes come in pieces, and lines come together
scenes: lines-many-in-order lines-session-in-one-segment sender-rooms-in-one-segment promises-long-burst split bytewise
rule: 8 What cannot be carried out gets an err, and the client goes on
scenes: basics-err sendall-no-room lines-no-colon lines-unknown-tag lines-tags-not-for-sender sendall-not-to-senders
scenes: lines-254
open: lines-empty lines-empty-tag lines-bad-tag login-twice because no tag in a test looks like that
open: lines-255 lines-256 lines-255-crlf because it can be read in two ways whether the end of a line counts
open: lines-256-crlf sendall-delivery-255 because it can be read in two ways whether the end of a line counts
open: sendall-delivery-256 because it can be read in two ways whether the end of a line counts
open: lines-long-16k lines-long-1m lines-long-many because nothing is said about the rest of a long message
rule: 5 A sender quits
scenes: sender-quit
open: sender-quit-payload because it carries bytes that are no ASCII
rule: 10 All receivers get a sender's texts in order, also those of several senders at the same time
scenes: promises-order-of-one-sender promises-ok-then-visible
open: promises-one-order promises-one-order-four-senders because receivers need the same texts, not the same order
rule: 7 Whatever clients send, and however they go, the server goes on
scenes: promises-survives promises-slow-receiver races-leave-during-broadcast sender-disconnect sender-reset
scenes: receiver-reset*
scenes: together server
rule: 10 Threads may meet in any order, and clients leave nothing behind
scenes: perturbed left-behind thread-sanitizer address-sanitizer

rule: 20 The sender logs in, and sends what is typed
scenes: program-sender-conversation program-sender-awaits-login program-sender-awaits-reply program-sender-all-at-once
open: program-sender-trim program-sender-blank-lines because nothing is said about blanks
rule: 10 Commands are carried out, and others refused
scenes: program-sender-leave program-sender-unknown-command
open: program-sender-join-no-room because commands in tests have the arguments that they need
rule: 8 The sender quits after the reply
scenes: program-sender-quit-waits
open: program-sender-end-of-input because nothing is said about the end of the input
rule: 12 The sender reports errors of the server on stderr, and goes on where it can
scenes: program-sender-err-login program-sender-err-later
rule: 5 The sender reports that it cannot connect
scenes: program-sender-no-server program-sender-unknown-host
open: program-sender-arguments because the words of a usage message and the exit code are not given
rule: 20 The receiver logs in, joins its room and prints each delivery
scenes: program-receiver-conversation
open: program-receiver-many program-receiver-any-text because they end with a server that goes away
rule: 15 The receiver reports errors of the server on stderr, and exits
scenes: program-receiver-err-login program-receiver-err-join
rule: 5 The receiver reports that it cannot connect
scenes: program-receiver-no-server program-receiver-unknown-host
open: program-receiver-arguments because the words of a usage message and the exit code are not given
rule: 5 The sender, the server and the receiver work together
scenes: program-pair
