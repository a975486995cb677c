#!/usr/bin/env bash
# SPDX-License-Identifier: BSL-1.0
# log.sh SERVER SENDER RECEIVER: checks what the server logs, what it leaves out, and that it never waits for the log.
set -euo pipefail
server=$1 sender=$2 receiver=$3
dir=$(mktemp -d)
started=()
at_exit() {
  ((${#started[@]} == 0)) || kill -9 "${started[@]}" 2>/dev/null || :
  rm -rf "$dir"
}
trap at_exit EXIT
fail() {
  echo "log: $1" >&2
  cat "$dir/log" >&2
  exit 1
}

# start FLAG...: starts a server whose stderr is $dir/log; sets pid and port.
start() {
  : >"$dir/log"
  "$server" 0 --threads 1 "$@" 2>"$dir/log" &
  pid=$!
  started+=("$pid")
  await '^listening on port'
  port=$(sed -n 's/^listening on port //p' "$dir/log")
}
# start_on PORT FLAG...: starts a server whose stderr the caller redirects.
start_on() {
  "$server" "$1" --threads 1 "${@:2}" &
  pid=$!
  started+=("$pid")
  port=$1
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$pid" # else it has died
    sleep 0.05
  done
}
await() { # PATTERN [PROCESS]: waits until the log has such a line
  until grep -q -e "$1" "$dir/log"; do
    kill -0 "${2:-$pid}" || fail "it has ended, and there is no line: $1"
    sleep 0.05
  done
}
stop() {
  kill "$pid"
  wait "$pid" || fail "the server has ended with exit code $?"
}
say() { "$sender" 127.0.0.1 "$port" "$@"; } # USER: sends stdin
come_and_go() {                             # COUNT
  for ((i = 0; i < $1; ++i)); do
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    exec 3>&-
  done
}
# The log without the times, which must be there, and without port numbers.
lines() {
  sed -E 's/^time=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z //; s/(127\.0\.0\.1:|port=| port )[0-9]+/\1N/' \
    "$dir/log"
}
total() { # PATTERN FIELD: counts the lines with PATTERN about a client, and adds the values of FIELD
  awk -v pattern="$1" -v field="$2" '
    $0 ~ pattern { if (/ client=/) ++n; if (match($0, field "=[0-9]+")) n += substr($0, RSTART + length(field) + 1) }
    END { print n + 0 }' "$dir/log"
}

echo 'a conversation, at info'
start --log info
printf '/join cafe\nhello\n/quit\n' | say bob
await 'event=ended'
stop
diff - <(lines) <<END || fail 'not these lines'
listening on port N
level=info event=started port=N policy=pool
level=info event=connected client=1 address=127.0.0.1:N
level=info event=logged_in client=1 address=127.0.0.1:N name=bob
level=info event=ended reason=closed client=1 address=127.0.0.1:N
level=info event=stopped accepted=1 refused=0 lines_in=4 texts=1
END

echo 'a person at a terminal is told how it serves'
if script --version 2>/dev/null | grep -q util-linux; then
  while read -r flags; do
    : >"$dir/log"
    script -qefc "'$server' 0 $flags" "$dir/log" </dev/null >/dev/null &
    terminal=$!
    started+=("$terminal")
    await '^listening on port .*)' "$terminal"
    kill "$terminal"
    wait "$terminal" || :
    grep -o 'listening .*)' "$dir/log"
  done >"$dir/said" <<'END'
--threads 2
--threads 1 --policy strand
--policy thread-per-client
END
  diff - <(sed -E 's/[0-9]+ \(/N (/' "$dir/said") <<'END' || fail 'not this'
listening on port N (pool, 2 threads)
listening on port N (strand, 1 thread)
listening on port N (thread-per-client)
END
else
  echo 'skipped: no script of util-linux'
fi

echo 'off, and error: nothing'
for level in off error; do
  start --log $level --max-clients 1
  exec 4<>"/dev/tcp/127.0.0.1/$port"
  if say carol </dev/null 2>/dev/null; then fail 'two clients of one'; fi
  exec 4>&-
  stop
  [ "$(lines)" = 'listening on port N' ] || fail "lines at level $level"
done

echo 'warn: who is refused, and who is cut'
start --log warn --max-clients 2 --queue-limit 1000 --send-buffer 4096
: >"$dir/alice"
"$receiver" 127.0.0.1 "$port" alice cafe >"$dir/alice" 2>&1 &
alice=$!
started+=("$alice")
disown "$alice" # else bash reports that it was killed
until grep -q . "$dir/alice"; do printf '/join cafe\nhere?\n' | say bob || :; done
exec 4<>"/dev/tcp/127.0.0.1/$port"
until grep -q 'event=refused' "$dir/log"; do # the last bob may still be connected
  say carol </dev/null 2>/dev/null || :
done
exec 4>&-
kill -STOP "$alice"
text=$(printf '%0200d' 0)
until grep -q 'event=ended' "$dir/log"; do
  {
    echo /join cafe
    yes "$text" | head -n 20000
  } | say bob 2>/dev/null || : # while the room is full
done
kill -KILL "$alice"
stop
lines | grep -q '^level=warn event=refused reason=full address=127.0.0.1:N$' || fail 'not refused'
lines | grep -Eq '^level=warn event=ended reason=overflow client=[0-9]+ address=127.0.0.1:N$' || fail 'not cut'
[ "$(lines | grep -cv '^level=warn')" = 1 ] || fail 'less than a warning'

echo 'nobody forges a line'
start --log debug
for name in 'bob level=error event=forged' 'bob"' $'bob\rtime=1' $'bob\x1b[2J' "bob\\"; do
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf 'slogin:%s\nlevel=error event=forged\nquit:\n' "$name" >&3
  grep -q '^err:' <&3
  exec 3>&-
done
stop
if grep -Eq 'forged|level=error|time=1$|[^ -~]' "$dir/log"; then fail 'a forged line'; fi

echo 'a flood of 2000'
start --log info
come_and_go 2000
say bob </dev/null # when this bob is logged, so are all before
stop
[ "$(total event=connected suppressed)" = 2001 ] || fail 'those who came do not add up'
[ "$(total event=ended suppressed)" = 2001 ] || fail 'those who went do not add up'
grep -q 'suppressed=' "$dir/log" || fail 'nothing was suppressed'
grep -q 'event=stopped accepted=2001 ' "$dir/log" || fail 'not all were accepted'
if grep -q 'dropped=' "$dir/log"; then fail 'lines were lost'; fi

echo 'fail2ban finds those who offend, and nobody else'
if command -v fail2ban-regex >/dev/null; then
  filter=$(cd "$(dirname "$0")/.." && pwd)/packaging/fail2ban/chatproto.conf
  start --log info --login-deadline 0.1
  say bob </dev/null
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  read -r <&3 || : # closed at the deadline
  exec 3>&-
  await 'reason=login_deadline'
  stop
  [ "$(fail2ban-regex --out ip "$dir/log" "$filter")" = 127.0.0.1 ] || fail 'fail2ban finds not just one offence'
  sed 's/^/host chatproto-server[1]: /' "$dir/log" >"$dir/journal"
  [ "$(fail2ban-regex --out ip "$dir/journal" "$filter")" = 127.0.0.1 ] || fail 'fail2ban does not read the journal'
  if "$server" --hash bob <<<'correct horse' >"$dir/passwords" 2>"$dir/none"; then
    start --log info --passwords "$dir/passwords"
    echo 'incorrect horse' >"$dir/secret"
    if say bob --password-file "$dir/secret" </dev/null 2>/dev/null; then fail 'a wrong secret was accepted'; fi
    if say bob </dev/null 2>/dev/null; then fail 'no secret was accepted'; fi
    say carol </dev/null
    stop
    [ "$(grep -c 'event=login_refused' "$dir/log")" = 2 ] || fail 'not two refused logins'
    [ "$(fail2ban-regex --out ip "$dir/log" "$filter")" = $'127.0.0.1\n127.0.0.1' ] ||
      fail 'fail2ban finds not just the refused logins'
  else
    echo 'skipped: the server has no secrets'
  fi
else
  echo 'skipped: no fail2ban-regex (Debian: fail2ban)'
fi

echo 'stderr is closed: no client is told the log'
start_on "$port" --log debug 2>&-
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'slogin:bob\njoin:cafe\nsendall:hello\nquit:\n' >&3
[ "$(sed 's/^ok:.*/ok/' <&3)" = $'ok\nok\nok\nok' ] || fail 'what is that?'
exec 3>&-
come_and_go 200
say bob </dev/null
stop

echo 'who reads stderr goes away'
mkfifo "$dir/pipe"
head -n 1 "$dir/pipe" >"$dir/log" &
reader=$!
start_on "$port" --log debug 2>"$dir/pipe"
wait $reader
come_and_go 200
printf '/join cafe\nhello\n/quit\n' | say bob
stop

echo 'nobody reads stderr'
exec 5<>"$dir/pipe"
for size in 4096 1; do # until the pipe is full
  dd if=/dev/zero bs=$size count=1000000 oflag=nonblock >&5 2>"$dir/dd" || :
  if ! grep -q 'records out' "$dir/dd"; then
    echo 'skipped: no dd that fills a pipe'
    exit 0
  fi
done
start_on "$port" --log debug 2>"$dir/pipe" 5>&-
come_and_go 2000
printf '/join cafe\nhello\n/quit\n' | say bob
stop
