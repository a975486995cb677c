# Everything that docs/protocol.md asks for. The rules about a server add up to 100 points, and so do those about the
# sender and the receiver.
title: The chat protocol

rule: 5 Clients log in
scenes: basics-sender basics-receiver basics-company login-sender login-receiver login-half-close login-none
rule: 4 Any other first message is refused, and the server closes
scenes: login-other-tag login-malformed login-then-nothing-counts
scenes: receiver-first-not-join receiver-first-bad-room receiver-first-then-nothing-counts
rule: 2 The login deadline
scenes: login-deadline-*
rule: 4 A name has letters and digits, and their case counts; a bad one is refused, and changes nothing
scenes: names-good names-of-tags names-bad-* names-room-* names-user-case sender-join-bad-stays receiver-join-bad-stays
rule: 2 Names may be used more than once
scenes: names-not-unique
rule: 3 A line ends in \n or \r\n, an answer in \n
scenes: lines-lf lines-crlf lines-mixed-ends
rule: 4 A line has at most 255 bytes
scenes: lines-254 lines-255* names-longest-* login-255 lines-answers-short
rule: 5 A longer line gets one err, and nothing of it is carried out
scenes: lines-256* lines-long-* login-256 login-long receiver-first-long
rule: 3 What is no message gets one err
scenes: lines-empty lines-empty-tag lines-bad-tag lines-no-colon
rule: 3 An unknown tag, or one for others, gets one err
scenes: lines-unknown-tag lines-tags-not-for-* login-twice receiver-anything-else receiver-does-not-send
rule: 5 A text is kept byte for byte
scenes: lines-payload-*
rule: 6 Bytes come in pieces, and lines come together
scenes: lines-many-in-order lines-many-bad lines-many-receiver lines-session-in-one-segment sender-rooms-in-one-segment promises-long-burst split bytewise
rule: 3 A line without an end is not carried out
scenes: lines-partial-* login-partial
rule: 4 Each message of a sender gets one reply
scenes: basics-err sendall-not-to-senders sendall-no-room
rule: 5 Senders join rooms
scenes: basics-join sender-join-again sender-join-makes-room sender-join-moves
rule: 3 Senders leave rooms
scenes: sender-leave-* sender-join-leave
rule: 10 A text reaches every receiver in the room, once, except those of the sender's own name
scenes: basics-delivery sendall-several sendall-nobody sendall-empty promises-many-receivers promises-many-texts
scenes: sendall-not-own-name sendall-exactly-own-name
rule: 3 A delivery has at most 255 bytes
scenes: sendall-delivery-*
rule: 4 A text for one user
scenes: senduser-*
rule: 5 A client quits
scenes: sender-quit* receiver-quit*
rule: 3 The end of a client's input ends it in order
scenes: sender-half-close* receiver-half-close* sender-disconnect
rule: 3 Receivers join rooms
scenes: receiver-moves* receiver-joins-again
rule: 4 Receivers get the texts of their room from their join on, and no others
scenes: promises-rooms-apart receiver-no-history promises-registered-before-ok promises-comes-and-goes
rule: 4 All receivers see the texts in one order
scenes: promises-one-order* promises-order-of-one-sender promises-ok-then-visible
rule: 3 Slow and bad clients, and clients that vanish, disturb nobody
scenes: promises-slow-* promises-bad-client receiver-reset* sender-reset together server
