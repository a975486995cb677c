#!/usr/bin/env bash
# SPDX-License-Identifier: BSL-1.0
# bash bench/run.sh: measures the three threading policies and the floor under load, or TLS beside two proxies, or
# servers that share their rooms through Redis, or WebSocket beside TCP, or what options of the server cost, prints
# tables, draws pictures and checks bounds.
set -euo pipefail
export LC_ALL=C

usage() {
  cat <<'END'
usage: bench/run.sh [--rounds N | --quick] [--append] [--out DIR] [--bin DIR] [--no-bounds]
                    [--server COMMAND | --tls | --redis | --websocket | --against OPTIONS] [CASE...]

  --rounds N        how often each run is repeated, alternating with the others (3)
  --quick           one round of short runs, which only shows that everything works
  --out DIR         folder for results.jsonl, tables.md and pictures (build/bench, or build/bench-tls with --tls, and
                    so on)
  --append          adds to the existing results.jsonl instead of starting a new one
  --server COMMAND  also measures another server of this protocol; {port} in COMMAND becomes the port
  --tls             measures the pool with one thread without TLS, with its own TLS 1.3, and without TLS behind stunnel
                    and behind haproxy, whose CPU time and memory are added to the server's
  --redis           measures the pool with one thread: one server alone, one with Redis, three that share a Redis, and
                    three that share two of them. The CPU time of Redis is shown apart
  --websocket       measures the pool with one thread, whose clients all come over TCP, or all by WebSocket; the load
                    never sleeps
  --against OPTIONS measures the pool with one thread without and with these options of the server, separated by blanks,
                    in turn, and shows for each case the median, the least and the greatest ratio of all rounds
  --no-bounds       fails only if a run fails or a delivery is lost, out of order or wrong, however slow it was
  --bin DIR         takes the programs from DIR instead of building them with the preset release

The floor (bench/floor.cpp) does only what every such server has to do. It is measured in all cases except slow and
threads.

Cases; without any, all of them:
  fan1x100 fan4x100 fan1x1000 fan4x1000   1 or 4 senders that pipeline, in one room of 100 or 1,000 receivers
  sync1x100 sync50x100                    1 or 50 senders that wait for each ok, and 100 receivers
  rooms                                   500 rooms of one sender and two receivers
  latency                                 one sender, one receiver
  idle                                    5,000 receivers in 50 rooms; no texts are sent
  slow                                    one sender, 10 receivers, and one more that never reads and is replaced
                                          every 50 ms
  receivers rooms-curve clients threads text   curves over the number of receivers, rooms, clients or threads, or the
                                          bytes of a text

Cases only with --tls:
  handshakes                              TLS handshakes of clients that then close; haproxy does not pass them on
  storm                                   a sender and a receiver alone, and while 5,000 others shake hands at once

With --tls, idle has 1,000 receivers, and the cases are by default fan1x100 fan4x100 sync1x100 sync50x100 rooms latency
idle handshakes storm.

Cases only with --redis, where the clients of each room are dealt out to the servers in turn:
  many                                    20 rooms of 4 senders that pipeline and 5 receivers
  saturated                               500 rooms of one sender who waits and one receiver, and each Redis has a tenth
                                          of a core

With --redis, the cases are by default fan1x100 sync1x100 sync50x100 rooms latency idle many saturated; with
--websocket fan1x100 sync1x100 rooms idle; with --against fan1x100 fan4x100 sync1x100 rooms.
END
}
fail() {
  echo "run.sh: $1" >&2
  exit "${2:-2}"
}

all_cases=(fan1x100 fan4x100 fan1x1000 fan4x1000 sync1x100 sync50x100 rooms latency idle slow
  receivers rooms-curve clients threads text)
tls_cases=(fan1x100 fan4x100 sync1x100 sync50x100 rooms latency idle handshakes storm)
redis_cases=(fan1x100 sync1x100 sync50x100 rooms latency idle many saturated)
websocket_cases=(fan1x100 sync1x100 rooms idle)
against_cases=(fan1x100 fan4x100 sync1x100 rooms)
rounds='' quick='' append='' out='' command='' tls='' redis='' websocket='' against='' bin='' bounds=() cases=()
while (($# > 0)); do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --quick) quick=yes ;;
    --append) append=yes ;;
    --tls) tls=yes ;;
    --redis) redis=yes ;;
    --websocket) websocket=yes ;;
    --no-bounds) bounds=(--no-bounds) ;;
    --rounds | --out | --server | --against | --bin)
      [[ ${2-} ]] || fail "$1 needs a value (see --help)"
      case $1 in
        --rounds) rounds=$2 ;;
        --out) out=$2 ;;
        --server) command=$2 ;;
        --against) against=$2 ;;
        --bin) bin=$2 ;;
      esac
      shift
      ;;
    -*) fail "there is no option $1 (see --help)" ;;
    *)
      [[ " ${all_cases[*]} ${tls_cases[*]} ${redis_cases[*]} " == *" $1 "* ]] || fail "there is no case $1 (see --help)"
      cases+=("$1")
      ;;
  esac
  shift
done
[[ ! $quick || ! $rounds ]] || fail '--quick is one round; it does not go with --rounds'
rounds=${rounds:-3}
[[ $rounds =~ ^[1-9][0-9]{0,2}$ ]] || fail "'$rounds' is not a number of rounds"
[[ -z $command || $command == *'{port}'* ]] || fail 'the command of --server has no {port}'
modes=(${command:+--server} ${tls:+--tls} ${redis:+--redis} ${websocket:+--websocket} ${against:+--against})
((${#modes[@]} < 2)) || fail "${modes[0]} does not go with ${modes[1]}"
[[ $against != *[\"\\[:cntrl:]]* ]] || fail 'the options of --against have a character that they may not have'
[[ $tls || " ${cases[*]-} " != *' handshakes '* && " ${cases[*]-} " != *' storm '* ]] ||
  fail 'the cases handshakes and storm need --tls'
[[ $redis || " ${cases[*]-} " != *' many '* && " ${cases[*]-} " != *' saturated '* ]] ||
  fail 'the cases many and saturated need --redis'
if ((${#cases[@]} == 0)); then
  cases=("${all_cases[@]}")
  [[ ! $tls ]] || cases=("${tls_cases[@]}")
  [[ ! $redis ]] || cases=("${redis_cases[@]}")
  [[ ! $websocket ]] || cases=("${websocket_cases[@]}")
  [[ ! $against ]] || cases=("${against_cases[@]}")
fi
[[ $(uname) == Linux ]] || fail 'this needs Linux' 1
root=$(cd "$(dirname "$0")/.." && pwd)
out=${out:-$root/build/bench${tls:+-tls}${redis:+-redis}${websocket:+-websocket}${against:+-against}}
mkdir -p "$out"
out=$(cd "$out" && pwd)

times=(--seconds 2 --warmup 0.5) plots=python3-matplotlib handshakes=2000 storm=5000 others=() libraries=()
server_options=()
if [[ $quick ]]; then
  plots='' # it takes minutes to install
  rounds=1
  times=(--seconds 0.5 --warmup 0.1)
  handshakes=200 storm=500
fi
if [[ $tls ]]; then
  PATH+=:/usr/sbin # there Debian has haproxy
  others=(stunnel4 haproxy openssl) libraries=(libssl-dev)
fi
if [[ $redis ]]; then
  others=(redis-server) libraries=(libhiredis-dev pkg-config)
fi
if [[ $websocket ]]; then
  libraries=(libwslay-dev libhttp-parser-dev libssl-dev)
  server_options=(--websocket 0) # for TCP too, so that only what the clients speak differs
fi
[[ ! $against ]] || read -ra server_options <<<"$against"

if [[ -z $bin ]]; then
  bin=$root/build/release/bin
  (
    cd "$root" && # set -e has no effect here
      sh cmake/setup.sh cmake ninja-build g++ libasio-dev libcli11-dev libspdlog-dev catch2 libbenchmark-dev \
        python3 $plots ${libraries[@]+"${libraries[@]}" "${others[@]}"} &&
      cmake --preset release -DCHATPROTO_BUILD_BENCH=ON -DCHATPROTO_BUILD_EXAMPLES=ON &&
      cmake --build --preset release --target server bench_load bench_floor bench_core
  ) >"$out/build.log" 2>&1 || {
    cat "$out/build.log" >&2
    fail 'it does not build' 1
  }
fi
for program in server bench_load bench_floor; do
  [[ -x $bin/$program ]] || fail "there is no $bin/$program" 1
done
for program in ${others[@]+"${others[@]}"}; do
  command -v "$program" >/dev/null || fail "there is no $program (Debian: apt-get install ${others[*]})" 1
done

if [[ $websocket$against ]]; then
  wrong=$("$bin/server" 0 --policy pool --threads 1 ${server_options[@]+"${server_options[@]}"} --check 2>&1) ||
    fail "the server does not take ${server_options[*]}: $wrong" 1
fi

# --- What fits on this machine ----------------------------------------------------------------------------------------

ulimit -n "$(ulimit -Hn)"
least_of() { # NUMBER|unlimited|max...
  local least=1000000 each
  for each; do
    [[ ! $each =~ ^[0-9]+$ ]] || ((each >= least)) || least=$each
  done
  echo "$least"
}
descriptors=$(ulimit -n)
most=$(($(least_of "$descriptors") - 100))
# A client of thread-per-client takes a thread, and three descriptors besides its socket. Half of the threads are left
# to other programs.
threads=$(least_of "$(ulimit -u)" "$(cat /proc/sys/kernel/threads-max)" \
  "$(cat /sys/fs/cgroup/pids.max 2>/dev/null || :)" \
  "$(($(cat /proc/sys/vm/max_map_count) / 2))")
most_threads=$(least_of $((most / 4)) $((threads / 2)))

cpus=() pin_server=() pin_load=()
IFS=, read -ra ranges < <(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
for range in "${ranges[@]}"; do
  for ((cpu = ${range%-*}; cpu <= ${range#*-}; ++cpu)); do cpus+=("$cpu"); done
done
if ((${#cpus[@]} > 1)) && command -v taskset >/dev/null; then
  pin_server=(taskset -c "${cpus[0]}") pin_load=(taskset -c "${cpus[1]}")
fi

# --- One run ----------------------------------------------------------------------------------------------------------

scratch=$(mktemp -d)
processes=() measured=() load='' # measured: options of bench_load that name processes and ports
end_of() { # PID...: kills them and waits for them, the last first
  local i
  for ((i = $#; i > 0; --i)); do { kill -9 "${!i}" && wait "${!i}"; } 2>/dev/null || :; done
}
at_exit() {
  end_of ${processes[@]+"${processes[@]}"} $load
  rm -rf "$scratch"
}
trap at_exit EXIT
trap 'exit 1' HUP INT TERM

if [[ $tls ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>"$scratch/openssl" ||
    fail "openssl makes no certificate: $(tail -n 1 "$scratch/openssl")" 1
  cat "$scratch/cert.pem" "$scratch/key.pem" >"$scratch/both.pem"
fi

started() { # PID OPTION...: a process has been started, and these options of bench_load name it
  processes+=("$1")
  shift
  measured+=("$@")
}
are_there() {
  local each
  for each in "${processes[@]}"; do kill -0 "$each" 2>/dev/null || return 1; done
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
wait_until() { # COMMAND...: returns 1 if a process ends meanwhile, or if it takes too long
  local tries=0
  until "$@"; do
    are_there && ((++tries < 500)) || return 1
    sleep 0.02
  done
}

said_by_servers() { # the first line that is not a port
  cat "$scratch"/server* | grep -vm 1 ' on port [0-9]*$' || :
}
serves() { # POLICY
  if [[ $1 == other || $1 == floor || $1 == tls ]]; then
    listens
  else
    local what='^listening'
    [[ $1 != websocket ]] || what='.* for WebSocket'
    port=$(sed -n "s/$what on port \([0-9]*\).*/\1/p" "$scratch/server")
    [[ $port ]]
  fi
}

free_port() { # sets port
  port=$((20000 + RANDOM % 10000))
  while listens; do port=$((20000 + RANDOM % 10000)); done
}

start_server() { # POLICY THREADS CASE: sets processes, measured and port
  local pin=() policy=$1 further=()
  [[ ! $pinned ]] || pin=("${pin_server[@]}")
  rm -f "$scratch/server"*
  : >"$scratch/server"
  port=''
  if [[ $redis ]]; then
    start_cluster "$@" ${pin[@]+"${pin[@]}"}
    return
  fi
  [[ $1 != other && $1 != floor && $1 != tls ]] || free_port
  if [[ $1 == other ]]; then
    "${pin[@]}" bash -c "exec ${command//\{port\}/$port}" 2>"$scratch/server" >/dev/null &
  elif [[ $1 == floor ]]; then
    "${pin[@]}" "$bin/bench_floor" "$port" 2>"$scratch/server" &
  elif [[ $1 == tls ]]; then
    "${pin[@]}" "$bin/server" 0 --address 127.0.0.1 --policy pool --threads "$2" --tls "$port" \
      --cert "$scratch/cert.pem" --key "$scratch/key.pem" 2>"$scratch/server" &
  else
    [[ ! $tls$websocket$against ]] || policy=pool
    [[ $1 == without ]] || further=(${server_options[@]+"${server_options[@]}"})
    "${pin[@]}" "$bin/server" 0 --address 127.0.0.1 --policy "$policy" --threads "$2" \
      ${further[@]+"${further[@]}"} 2>"$scratch/server" &
  fi
  started $! --pid $!
  wait_until serves "$1" || return 1
  [[ $1 != stunnel && $1 != haproxy ]] || start_proxy "$1" "$3" "${pin[@]}"
}

# --- Several servers and Redis

is_connected() { # PORT of a server's metrics: whether it has reached each Redis
  local metrics
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET /metrics HTTP/1.1\r\n\r\n' >&3
  metrics=$(cat <&3)
  exec 3>&-
  [[ $metrics == *'chatproto_redis_connected{'* && ! $metrics =~ chatproto_redis_connected\{[^}]*\}\ 0 ]]
}

has_port() { # NUMBER WHAT: whether the server has said its port for this; sets found
  found=$(sed -n "s/^$2 on port //p" "$scratch/server$1")
  [[ $found ]]
}

# start_cluster POLICY THREADS CASE PIN...: starts the servers, and Redis beside them on the same core: what is read is
# what they cost. A text visits one after the other, so this hardly lengthens its way; without any pinning the median
# latency differed by less than from round to round.
start_cluster() {
  local threads=$2 case=$3 servers=1 engines=1 list='' i first='' flags=()
  case $1 in
    alone) engines=0 ;;
    three) servers=3 ;;
    three-two) servers=3 engines=2 ;;
  esac
  shift 3
  local pin_engine=("$@")
  [[ $case != saturated ]] || pin_engine=("${pin_load[@]}") # so that only its share limits it
  for ((i = 0; i < engines; ++i)); do
    free_port
    "${pin_engine[@]}" redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$scratch" \
      --loglevel warning >"$scratch/server_redis$i" 2>&1 &
    started $! --engine-pid $!
    wait_until listens || return 1
    list+=${list:+,}127.0.0.1:$port
    [[ $case != saturated ]] || limit $!
  done
  [[ ! $list ]] || flags=(--redis "$list" --metrics 0)
  for ((i = 0; i < servers; ++i)); do
    : >"$scratch/server$i"
    "$@" "$bin/server" 0 --address 127.0.0.1 --policy pool --threads "$threads" \
      ${flags[@]+"${flags[@]}"} 2>"$scratch/server$i" &
    started $! --pid $!
    wait_until has_port $i listening || return 1
    [[ ! $first ]] || measured+=(--also "$found")
    first=${first:-$found}
    [[ ! $list ]] || { wait_until has_port $i metrics && wait_until is_connected "$found"; } || return 1
  done
  port=$first
}

# limit PID: after each 2 ms, stops the process until its CPU time is a tenth of the time that has passed. (A control
# group would do this better, where one may make any.)
limit() {
  python3 -c '
import os, signal, sys, time
pid, parent = int(sys.argv[1]), os.getppid()
clock = ~pid << 3 | 2  # of its CPU time
next, used = time.monotonic(), time.clock_gettime(clock)
while os.getppid() == parent:
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.002)
    os.kill(pid, signal.SIGSTOP)
    before, used = used, time.clock_gettime(clock)
    now = time.monotonic()
    next = max(next + (used - before) * 10, now - 0.02)  # what it does not use is not saved up for long
    time.sleep(max(0, next - now))
os.kill(pid, signal.SIGCONT)' "$1" 2>/dev/null &
  started $!
}

# --- Proxies

start_proxy() { # PROXY CASE PIN...: puts it before the server, and sets port
  local name=$1 behind=$port to="server chat 127.0.0.1:$port"
  [[ $2 != handshakes ]] || to='tcp-request session reject' # after the handshake; no connection to the server
  shift 2
  free_port
  if [[ $name == stunnel ]]; then
    cat >"$scratch/proxy.conf" <<END
foreground = yes
pid =
debug = crit
[chat]
accept = 127.0.0.1:$port
connect = 127.0.0.1:$behind
cert = $scratch/cert.pem
key = $scratch/key.pem
END
    "$@" stunnel4 "$scratch/proxy.conf" 2>"$scratch/server" &
  else
    cat >"$scratch/proxy.conf" <<END
global
  nbthread 1
  maxconn $((($(least_of "$descriptors") - 100) / 2))
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen chat
  bind 127.0.0.1:$port ssl crt $scratch/both.pem ssl-min-ver TLSv1.3
  $to
END
    "$@" haproxy -db -f "$scratch/proxy.conf" 2>"$scratch/server" &
  fi
  started $! --pid $!
  wait_until listens
}

run() { # CASE POINT POLICY THREADS ROUND OPTION...: adds one line to the results
  local case=$1 point=$2 policy=$3 threads=$4 round=$5 pin=() over=() result='' code=0
  shift 5
  [[ ! $tls || $policy == plain ]] || over=(--tls)
  [[ $policy != websocket ]] || over=(--websocket)
  # The load does less for WebSocket, would sleep more often, and to wake it costs the server.
  [[ ! $websocket || " $* " == *' --spin '* || $case == idle ]] || over+=(--spin)
  [[ ! $pinned ]] || pin=("${pin_load[@]}")
  [[ $case != saturated ]] || pin=("${pin_server[@]}")
  : >"$scratch/json"
  if start_server "$policy" "$threads" "$case"; then
    "${pin[@]}" "$bin/bench_load" 127.0.0.1 "$port" "${measured[@]}" ${over[@]+"${over[@]}"} "${times[@]}" "$@" \
      >"$scratch/json" 2>"$scratch/load" &
    load=$!
    wait "$load" || code=$?
    load=''
  else
    code=1
    echo "the server does not start: $(said_by_servers)" >"$scratch/load"
  fi
  if are_there; then
    result=$(cat "$scratch/json")
  elif ((code == 0)); then # otherwise the load's own message says more
    echo "the server has ended: $(said_by_servers)" >"$scratch/load"
  fi
  end_of "${processes[@]}"
  processes=() measured=()
  if [[ -z $result ]]; then
    result="{\"failed\": \"$(head -n 1 "$scratch/load" | tr -d '\\"' | tr -c '[:print:]' ' ')\"}"
    code=1
  fi
  ((code == 0)) || sed "s/^/$case $point, $policy: /" "$scratch/load" >&2
  printf '{"case": "%s", "point": %s, "policy": "%s", "threads": %s, "round": %s, "exit": %s, %s%s\n' \
    "$case" "$point" "$policy" "$threads" "$round" "$code" "${against:+"\"options\": \"$against\", "}" "${result#\{}" \
    >>"$out/results.jsonl"
}

# --- All runs ---------------------------------------------------------------------------------------------------------

# runs_of CASE: prints lines of POINT, THREADS, CLIENTS and the options of bench_load. A sender that waits for each ok
# must not run far ahead of the receivers either.
runs_of() {
  local n fan=(--window 256 --lag 512) rooms=(--senders 1 --receivers 2 --window 1 --lag 8)
  case $1 in
    fan*x* | sync*x*)
      n=${1#fan} n=${n#sync}
      [[ $1 != fan4x* ]] || fan=(--window 256 --lag 2048) # the windows of four senders
      [[ $1 == fan* ]] || fan=(--window 1 --lag 512)
      echo 0 1 $((${n%x*} + ${n#*x})) --senders "${n%x*}" --receivers "${n#*x}" "${fan[@]}"
      ;;
    rooms) echo 500 1 1500 --rooms 500 "${rooms[@]}" ;;
    # In a cluster the ok may come before the delivery: the next text must not be under way with the one measured.
    latency) echo 0 1 2 --window 1 --spin ${redis:+--lag 1} ;;
    idle)
      n=50
      [[ ! $tls ]] || n=10
      echo $((n * 100)) 1 $((n * 100)) --idle --senders 0 --rooms $n --receivers 100
      ;;
    handshakes) echo 0 1 100 --handshakes "$handshakes" ;;
    storm)
      # A text every 2 ms: if senders waited for each ok, few texts would meet the worst moments.
      echo 0 1 2 --interval 0.002 --window 1024 --lag 1024
      echo "$storm" 1 $((storm + 2)) --interval 0.002 --window 1024 --lag 1024 --storm "$storm"
      ;;
    many) echo 20 1 180 --rooms 20 --senders 4 --receivers 5 --window 64 --lag 512 ;;
    saturated) echo 500 1 1000 --rooms 500 --senders 1 --receivers 1 --window 1 --lag 8 ;;
    slow) for n in 0 1; do echo $n 1 $((11 + n)) --receivers 10 --slow $n "${fan[@]}"; done ;;
    receivers) for n in 10 30 100 300 1000 3000 5000; do echo $n 1 $((n + 1)) --receivers $n "${fan[@]}"; done ;;
    rooms-curve) for n in 1 10 100 1000 5000; do echo $n 1 $((3 * n)) --rooms $n "${rooms[@]}"; done ;;
    clients)
      for n in 100 1000 5000 10000 20000; do
        echo $n 1 $n --idle --senders 0 --rooms $((n / 100)) --receivers 100
      done
      ;;
    threads) for n in 1 2; do echo $n $n 1500 --rooms 500 "${rooms[@]}"; done ;;
    text) for n in 20 64 128 200; do echo $n 1 101 --receivers 100 --text $n "${fan[@]}"; done ;;
  esac
}

said=''
once() { # TEXT: prints it, but not again in the next round
  [[ $said == *"<$1>"* ]] || echo "$1" >&2
  said+="<$1>"
}

policies=(pool strand thread-per-client floor)
[[ -z $command ]] || policies+=(other)
[[ ! $tls ]] || policies=(plain tls stunnel haproxy)
[[ ! $redis ]] || policies=(alone one three three-two)
[[ ! $websocket ]] || policies=(tcp websocket)
[[ ! $against ]] || policies=(without with)
total=0
[[ $append ]] || rm -f "$out/results.jsonl"
[[ ! $against || ! -s $out/results.jsonl ]] ||
  ! grep -qvF "\"options\": \"$against\"" "$out/results.jsonl" ||
  fail "$out/results.jsonl has runs that were not made for --against '$against'"
[[ ! -s $out/results.jsonl ]] ||
  echo "The tables also count the $(wc -l <"$out/results.jsonl") runs that $out/results.jsonl already has" >&2
for ((round = 1; round <= rounds; ++round)); do
  for case in "${cases[@]}"; do
    cut_down=''
    while read -r point threads clients options; do
      for ((i = 0; i < ${#policies[@]}; ++i)); do
        policy=${policies[(i + round) % ${#policies[@]}]} # another policy begins each round
        # The floor does not implement what these cases measure.
        [[ $policy != floor || " slow threads " != *" $case "* ]] || continue
        [[ $policy != plain || " handshakes storm " != *" $case "* ]] || continue # these are about TLS
        [[ $case != saturated || $policy == three* ]] || continue                 # this is about Redis
        read -ra words <<<"$options"
        fits=$most why="the $descriptors descriptors that a process may have"
        if [[ $policy == thread-per-client ]]; then
          fits=$most_threads why='a thread and four descriptors for each client'
          [[ $case != threads ]] || continue # it has no number of threads
        fi
        here=$point
        if ((clients > fits)); then
          if [[ " idle clients " != *" $case "* ]]; then
            once "$case $point is left out for $policy: $clients clients, and $fits fit ($why)"
            continue
          fi
          here=$((fits / 100 * 100))
          once "$case $point is $case $here for $policy: no more fit ($why)"
          [[ $cut_down != *"<$policy $here>"* ]] || continue # already done at the point before
          cut_down+="<$policy $here>"
          for ((k = 0; k < ${#words[@]}; ++k)); do
            [[ ${words[k]} != --rooms ]] || words[k + 1]=$((here / 100))
          done
        fi
        pinned=yes
        [[ $case != threads ]] || pinned='' # this case is about several cores: even one thread is not pinned
        run "$case" "$here" "$policy" "$threads" "$round" "${words[@]}"
        total=$((total + 1))
        [[ ! -t 2 ]] || printf '\rround %d of %d, %d runs, %s %s     ' "$round" "$rounds" "$total" "$case" "$point" >&2
      done
    done < <(runs_of "$case")
  done
done
[[ ! -t 2 ]] || printf '\n' >&2

python=python3
"$python" -c 'import matplotlib' 2>/dev/null || [[ ! -x /usr/bin/python3 ]] ||
  python=/usr/bin/python3 # the first python3 may be another one, without the system's packages
"$python" "$root/bench/report.py" ${bounds[@]+"${bounds[@]}"} "$out/results.jsonl" "$out"
