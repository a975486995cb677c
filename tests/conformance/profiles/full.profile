# Everything that docs/protocol.md asks for. The rules about a server add up to 100 points, and 10 more if races are
# looked for. Those about the sender and the receiver add up to 100.
title: The chat protocol

rule: 5 Clients log in
scenes: basics-sender basics-receiver basics-company login-sender login-receiver login-half-close login-none
rule: 4 Any other first message is refused, and the server closes
scenes: login-bad-err login-other-tag login-malformed login-then-nothing-counts
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
scenes: lines-many-in-order lines-many-bad lines-many-receiver lines-session-in-one-segment
scenes: sender-rooms-in-one-segment promises-long-burst split bytewise
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
scenes: races-* promises-slow-* promises-bad-client promises-survives receiver-reset* sender-reset together server
rule: 10 Threads may meet in any order, and clients leave nothing behind
scenes: perturbed left-behind thread-sanitizer address-sanitizer

rule: 10 The sender logs in, and sends what is typed
scenes: program-sender-conversation program-sender-awaits-* program-sender-all-at-once program-sender-last-line
rule: 8 A text is sent byte for byte, without the blanks around it
scenes: program-sender-text-bytes program-sender-trim program-sender-blank-lines
rule: 10 Commands are carried out, and others refused
scenes: program-sender-leave program-sender-join-no-room program-sender-join-bad-room program-sender-trim-command
scenes: program-sender-unknown-command
rule: 8 The sender quits, and ends with its input
scenes: program-sender-quit-* program-sender-end-of-input*
rule: 10 The sender reports errors of the server, and goes on where it can
scenes: program-sender-err-* program-sender-answers-ahead* program-sender-long-reply
rule: 6 The sender copes with a server that answers wrongly, or not at all
scenes: program-sender-login-* program-sender-later-garbage program-sender-never-answered program-sender-server-*
rule: 6 The sender checks its arguments and the length of its lines
scenes: program-sender-arguments program-sender-bad-* program-sender-no-server program-sender-unknown-host
scenes: program-sender-long-user program-sender-longest-*
rule: 4 The sender prompts on a terminal, and only there
scenes: program-sender-prompt* program-sender-no-prompt
rule: 12 The receiver prints each delivery
scenes: program-receiver-conversation program-receiver-prints program-receiver-any-text program-receiver-many
scenes: program-receiver-bytes program-receiver-longest program-receiver-stdin
rule: 6 The receiver reports errors of the server
scenes: program-receiver-err-* program-receiver-crlf
rule: 6 The receiver copes with a server that answers wrongly, or not at all
scenes: program-receiver-bad-delivery program-receiver-garbage program-receiver-long-line
scenes: program-receiver-never-answered
scenes: program-receiver-partial-delivery program-receiver-server-*
rule: 4 The receiver checks its arguments
scenes: program-receiver-arguments program-receiver-bad-room program-receiver-no-server program-receiver-unknown-host
rule: 4 On a terminal, no text can drive it
scenes: program-receiver-terminal*
rule: 6 The sender, the server and the receiver work together
scenes: program-pair
