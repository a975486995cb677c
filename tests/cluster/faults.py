#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Numbered texts over several servers with Redis between them, while one fault after another strikes.

Prints a row of a Markdown table for each fault. Exits with code 1 if any promise was broken.

How long anything took is reported, and decides nothing. The exception is who was disconnected by a fault that must not
disconnect anybody, without --quick: on a machine that is too busy, a server may rightly think that Redis is gone.
"""
import argparse
import collections
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import sys
import time

import clients
from cluster import BOTH, TO_REDIS, TO_SERVER, Cluster, Stuck, wait_for
from history import ERR, NEVER, NO_REPLY, OK, Findings, judge, spans_of

COLUMNS = ["fault", "texts", "deliveries", "doubled", "order", "invented", "lost", "receivers cut", "senders cut",
           "no reply", "err", "missing: cut", "away", "deaf (s)", "resumed (s)", "effect"]
FAULTS = {}
Fault = collections.namedtuple("Fault", "run needs_redis quick keeps first lasts cluster plan")


def fault(name, redis=True, quick=True, keeps=False, first=False, lasts=1, cluster=None, plan=None):
    """keeps: nobody may be disconnected; first: nobody in a room of another Redis than the first may be disconnected;
    lasts: seconds over which a third of the texts is sent."""
    def register(function):
        FAULTS[name] = Fault(function, redis, quick, keeps, first, lasts, cluster or {}, plan or {})
        return function
    return register


class Scene:
    """What a fault can do."""

    def __init__(self, cluster, shared, options):
        self.cluster, self.shared, self.quick = cluster, shared, options.quick
        self.some = max(100, options.texts // 100)  # texts
        self.felt_before = self.felt_now()
        self.redis = cluster.redis
        self.servers = cluster.servers

    def sleep(self, seconds):
        time.sleep(seconds)

    def until_connected(self):
        """Waits until each server has subscribed at each Redis."""
        for engine in self.redis:
            wait_for(lambda engine=engine: engine.connections("pubsub") >= len(self.servers), "subscriptions")

    def until_felt(self, seconds):
        """Waits for this time, and until some client has got err or was disconnected."""
        limit = time.monotonic() + seconds
        wait_for(lambda: self.felt_now() > self.felt_before, "the fault to be felt")
        time.sleep(max(0.0, limit - time.monotonic()))

    def felt_now(self):
        return self.shared.sum(clients.ERRS) + self.shared.sum(clients.CUTS)

    def until_talked(self, texts=None):
        """Waits until some more texts were sent."""
        goal = self.shared.sum(clients.SENT) + (texts or self.some)
        wait_for(lambda: self.shared.sum(clients.SENT) >= goal, "more texts")


@fault("none", redis=False, keeps=True, plan={"ends": True})
def none(scene):
    scene.sleep(0.5)


@fault("kill-server", redis=False)
def kill_server(scene):
    server = scene.servers[-1]
    server.kill()
    scene.until_felt(0.5)
    server.start()


def stop_server(scene, seconds):
    scene.servers[-1].pause()
    scene.sleep(seconds)
    scene.servers[-1].resume()


@fault("stop-server-3s", redis=False, keeps=True, lasts=3)
def stop_server_3(scene):
    stop_server(scene, 3)


@fault("stop-server-8s", redis=False, quick=False, keeps=True, lasts=8)
def stop_server_8(scene):
    stop_server(scene, 8)


@fault("stutter", redis=False, quick=False, keeps=True, lasts=6, plan={"churn": "most"})
def stutter(scene):
    """Each server stands still for a moment, again and again."""
    dice = random.Random(1)
    for _ in range(40):
        server = dice.choice(scene.servers)
        server.pause()
        scene.sleep(dice.uniform(0.0, 0.2))
        server.resume()
        scene.sleep(dice.uniform(0.0, 0.1))


@fault("stop-kill-trim")
def stop_kill_trim(scene):
    """A server stands still; meanwhile it is disconnected from Redis, and what it misses is gone when it wakes up."""
    scene.until_connected()
    server = scene.servers[-1]
    server.pause()
    trimmed = 0
    for engine in scene.redis:
        engine.kill_connections("pubsub", "normal")
    for _ in range(3):
        scene.until_talked()
    for engine in scene.redis:
        trimmed += sum(engine.ask_all([("XTRIM", key, "MAXLEN", 0) for key in engine.keys("stream")]) or [0])
    server.resume()
    return f"{trimmed} entries trimmed"


def restart_redis(scene):
    for engine in scene.redis[:1]:
        engine.kill()
    scene.until_felt(1)
    for engine in scene.redis[:1]:
        engine.restart()


@fault("kill-redis-snapshot", first=True)
def kill_redis_snapshot(scene):
    """Redis comes back with what it had some time before."""
    scene.redis[0].ask("SAVE")
    scene.until_talked()
    restart_redis(scene)


@fault("kill-redis-5", quick=False, first=True, lasts=5, cluster={"append_only": True})
def kill_redis_5(scene):
    """Redis is killed again as soon as it is there, or a little later."""
    for pause in [0, 0.05, 0.1, 0.2, 0.5]:
        scene.redis[0].kill()
        scene.redis[0].restart()
        scene.sleep(pause)


@fault("kill-redis", first=True)
def kill_redis(scene):
    restart_redis(scene)


@fault("kill-redis-aof", first=True, cluster={"append_only": True})
def kill_redis_aof(scene):
    restart_redis(scene)


def stop_redis(scene, seconds):
    scene.redis[0].pause()
    scene.sleep(seconds)
    scene.redis[0].resume()


@fault("stop-redis-2s", first=True, keeps=True, lasts=2)
def stop_redis_2(scene):
    stop_redis(scene, 2)


@fault("stop-redis-8s", first=True, quick=False, lasts=8)
def stop_redis_8(scene):
    stop_redis(scene, 8)


def kill_connections(scene, *kinds):
    scene.until_connected()
    killed = 0
    for _ in range(10 if scene.quick else 25):
        killed += sum(engine.kill_connections(*kinds) for engine in scene.redis)
        scene.sleep(0.1)
    return f"{killed} connections killed"


@fault("kill-normal", keeps=True, lasts=2.5)
def kill_normal(scene):
    return kill_connections(scene, "normal")


@fault("kill-pubsub", keeps=True, lasts=2.5)
def kill_pubsub(scene):
    return kill_connections(scene, "pubsub")


@fault("kill-storm", quick=False, keeps=True, lasts=6, plan={"churn": "most"})
def kill_storm(scene):
    """Connections are killed at any moment, so also while a server is busy with what it has missed."""
    dice = random.Random(1)
    scene.until_connected()
    killed = 0
    for _ in range(300):
        kinds = dice.choice([("pubsub",), ("normal",), ("pubsub", "normal")])
        killed += sum(engine.kill_connections(*kinds) for engine in scene.redis)
        scene.sleep(dice.uniform(0.0, 0.03))
    return f"{killed} connections killed"


@fault("kill-both", keeps=True, lasts=2.5)
def kill_both(scene):
    return kill_connections(scene, "pubsub", "normal")


def partition(scene, seconds, direction=BOTH, forget=False):
    relay = scene.cluster.relay_of[0][0]
    relay.held.value = direction
    scene.sleep(seconds)
    if forget:
        relay.forget.value = 1
        wait_for(lambda: not relay.forget.value, "the relay")
    relay.held.value = 0


RELAYED = {"relayed": (0,)}


@fault("relay", quick=False, keeps=True, cluster=RELAYED)
def relay_only(scene):
    scene.sleep(0.5)


@fault("partition-3s", quick=False, lasts=3, keeps=True, cluster=RELAYED)
def partition_3(scene):
    partition(scene, 3)


@fault("partition-3s-forgotten", lasts=3, keeps=True, cluster=RELAYED)
def partition_3_forgotten(scene):
    partition(scene, 3, forget=True)


@fault("partition-3s-to-redis", quick=False, lasts=3, keeps=True, cluster=RELAYED)
def partition_to_redis(scene):
    partition(scene, 3, TO_REDIS)


@fault("partition-3s-to-server", quick=False, lasts=3, keeps=True, cluster=RELAYED)
def partition_to_server(scene):
    partition(scene, 3, TO_SERVER)


@fault("partition-8s", quick=False, first=True, lasts=8, cluster=RELAYED)
def partition_8(scene):
    partition(scene, 8)


@fault("partition-8s-forgotten", quick=False, first=True, lasts=8, cluster=RELAYED)
def partition_8_forgotten(scene):
    partition(scene, 8, forget=True)


@fault("partition-8s-to-server", quick=False, first=True, lasts=8, cluster=RELAYED)
def partition_8_to_server(scene):
    partition(scene, 8, TO_SERVER)


@fault("partitions", quick=False, lasts=8, cluster={"relayed": (0, 1, 2)})
def partitions(scene):
    """Short ones of all servers, in turn and at random; nobody is without Redis for long."""
    dice = random.Random(1)
    for _ in range(40):
        relay = scene.cluster.relay_of[dice.randrange(len(scene.servers))][0]
        relay.held.value = dice.choice([BOTH, TO_REDIS, TO_SERVER])
        scene.sleep(dice.uniform(0.01, 0.4))
        if dice.random() < 0.5:
            relay.forget.value = 1
            wait_for(lambda relay=relay: not relay.forget.value, "the relay")
        relay.held.value = 0


@fault("jitter", keeps=True, lasts=3, cluster={"relayed": (0, 1, 2)}, plan={"churn": "most"})
def jitter(scene):
    """Each connection to Redis is late on its own, so replies and deliveries overtake each other."""
    for relays in scene.cluster.relay_of.values():
        for relay in relays:
            relay.jitter.value = 20
    for _ in range(3):
        scene.until_talked()
    scene.sleep(0.5 if scene.quick else 3)
    for relays in scene.cluster.relay_of.values():
        for relay in relays:
            relay.jitter.value = 0


@fault("lag", lasts=3, keeps=True, cluster={"relayed": (0, 1, 2)}, plan={"churn": "most"})
def lag(scene):
    """What Redis publishes comes later than its replies, also after connections were made anew."""
    relays = [relay for relays in scene.cluster.relay_of.values() for relay in relays]
    for relay in relays:
        relay.lag.value = 40
    killed = 0
    for _ in range(5 if scene.quick else 30):
        scene.until_talked(20)
        killed += sum(engine.kill_connections("pubsub") for engine in scene.redis)
        scene.sleep(0.1)
    for relay in relays:
        relay.lag.value = 0
    return f"{killed} connections killed"


@fault("hurry", quick=False, keeps=True, lasts=4, cluster={"relayed": (0, 1, 2)},
       plan={"rooms": 24, "receivers": 2, "senders": 1, "churn": "all", "pause": (0.0, 0.02)})
def hurry(scene):
    """As jitter, while all receivers come and go, so that servers follow rooms for moments only."""
    jitter(scene)


@fault("jitter-kill", quick=False, keeps=True, lasts=6, cluster={"relayed": (0, 1, 2)}, plan={"churn": "most"})
def jitter_kill(scene):
    relays = [relay for relays in scene.cluster.relay_of.values() for relay in relays]
    for relay in relays:
        relay.jitter.value = 20
    dice = random.Random(1)
    killed = 0
    for _ in range(60):
        engine = dice.choice(scene.redis)
        killed += engine.kill_connections(*dice.choice([("pubsub",), ("normal",), ("pubsub", "normal")]))
        scene.sleep(dice.uniform(0.0, 0.2))
    for relay in relays:
        relay.jitter.value = 0
    return f"{killed} connections killed"


@fault("script-flush", keeps=True)
def script_flush(scene):
    for _ in range(20):
        for engine in scene.redis:
            engine.ask("SCRIPT", "FLUSH")
        scene.until_talked(10)


@fault("flushall")
def flushall(scene):
    for _ in range(3):
        for engine in scene.redis:
            engine.ask("FLUSHALL")
        scene.until_talked(10)


@fault("flushall-kill")
def flushall_kill(scene):
    scene.until_connected()
    for engine in scene.redis:
        engine.ask_all([("CLIENT", "KILL", "TYPE", "pubsub"), ("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")])
    scene.until_talked()


@fault("trim-kill")
def trim_kill(scene):
    for _ in range(5):
        scene.until_connected()
        for engine in scene.redis:
            trims = [("XTRIM", key, "MAXLEN", 0) for key in engine.keys("stream")]
            engine.ask_all([("CLIENT", "KILL", "TYPE", "pubsub"), *trims, ("CLIENT", "KILL", "TYPE", "normal"), *trims])
        scene.until_talked()
    return f"{len(trims)} streams trimmed 10 times"


@fault("kill-then-trim")
def kill_then_trim(scene):
    """One server is cut from Redis, the others talk on, and what it has missed is trimmed before it comes back."""
    # Its subscription is the first. Redis must be free to hold it back: it is killed again until the trim is done.
    trimmed = 0
    for _ in range(5):
        scene.until_connected()
        for engine in scene.redis:
            line = engine.ask("CLIENT", "LIST", "TYPE", "pubsub").split(b"\n")[0]
            address = next(word for word in line.split() if word.startswith(b"addr="))[5:]
            engine.ask("CLIENT", "KILL", "ADDR", address)
            keys = engine.keys("stream")
            trimmed += sum(engine.ask_all([("XTRIM", key, "MAXLEN", 0) for key in keys]))
        scene.until_talked()
    return f"{trimmed} entries trimmed"


def expire(scene, kind):
    count = 0
    for _ in range(5):
        for engine in scene.redis:
            count += sum(engine.ask_all([("PEXPIRE", key, 1) for key in engine.keys(kind)]) or [0])
        scene.until_talked(100)
    return f"{count} keys expired"


@fault("expire-hash")
def expire_hash(scene):
    return expire(scene, "hash")


@fault("expire-stream")
def expire_stream(scene):
    return expire(scene, "stream")


@fault("expire-hash-kill")
def expire_hash_kill(scene):
    scene.until_connected()
    for engine in scene.redis:
        keys = engine.keys("hash") + engine.keys("string")
        engine.ask_all([*(("PEXPIRE", key, 1) for key in keys), ("CLIENT", "KILL", "TYPE", "pubsub")])
    scene.until_talked()
    return f"{len(keys)} keys expired"


@fault("tiny-buffer", cluster={"relayed": (0,), "relay_buffer": 4096})
def tiny_buffer(scene):
    """Redis disconnects subscribers that are behind by next to nothing; one of them is, until that has happened."""
    setting = "client-output-buffer-limit"
    before = {engine: engine.ask("CONFIG", "GET", setting)[1] for engine in scene.redis}
    ids = lambda: {line.split()[0] for line in scene.redis[0].ask("CLIENT", "LIST", "TYPE", "pubsub").splitlines()}
    scene.until_connected()
    for engine in scene.redis:
        engine.ask("CONFIG", "SET", setting, "pubsub 2048 1024 1")
    old = ids()
    scene.cluster.relay_of[0][0].held.value = TO_SERVER
    scene.shared.flood()
    wait_for(lambda: old - ids(), "Redis to cut a subscription")
    scene.cluster.relay_of[0][0].held.value = 0
    scene.sleep(0.2 if scene.quick else 3)
    cut = len(old - ids())
    for engine in scene.redis:
        engine.ask("CONFIG", "SET", setting, before[engine])
    return f"{cut} subscriptions were cut by Redis"


@fault("out-of-memory", keeps=True)
def out_of_memory(scene):
    for engine in scene.redis:
        engine.ask("CONFIG", "SET", "maxmemory", 1)
    scene.until_felt(0.5 if scene.quick else 3)
    for engine in scene.redis:
        engine.ask("CONFIG", "SET", "maxmemory", 0)


@fault("read-only")
def read_only(scene):
    for engine in scene.redis:
        engine.ask("REPLICAOF", "127.0.0.1", 1)
    scene.until_felt(0.5 if scene.quick else 3)
    for engine in scene.redis:
        engine.ask("REPLICAOF", "NO", "ONE")


def evict(scene, policy):
    """Redis is so short of memory that it evicts keys by this policy."""
    engine = scene.redis[0]
    engine.ask("CONFIG", "SET", "maxmemory-policy", policy)
    for _ in range(30):
        used = int(next(line for line in engine.ask("INFO", "memory").split(b"\r\n")
                        if line.startswith(b"used_memory:")).split(b":")[1])
        engine.ask("CONFIG", "SET", "maxmemory", used - 20000)
        scene.sleep(0.05)
        engine.ask("CONFIG", "SET", "maxmemory", 0)
    stats = dict(line.split(":", 1) for line in engine.ask("INFO", "stats").decode().split("\r\n") if ":" in line)
    return f"{stats['evicted_keys']} keys evicted"


@fault("evict-oldest", keeps=True)
def evict_oldest(scene):
    return evict(scene, "volatile-ttl")


@fault("evict-any", quick=False, keeps=True)
def evict_any(scene):
    return evict(scene, "allkeys-random")


@fault("replica", quick=False)
def replica(scene):
    """Redis becomes a replica of an empty one, and is then on its own again."""
    with Cluster(None, servers=0, redis=1) as other:
        scene.redis[0].ask("REPLICAOF", "127.0.0.1", other.redis[0].port)
        wait_for(lambda: b"master_link_status:up" in scene.redis[0].ask("INFO", "replication"), "the replica", 60)
        scene.until_felt(0.5)
        scene.redis[0].ask("REPLICAOF", "NO", "ONE")
    shutil.rmtree(other.folder, ignore_errors=True)


@fault("client-pause", keeps=True)
def client_pause(scene):
    for engine in scene.redis:
        engine.ask("CLIENT", "PAUSE", 500, "WRITE")
    scene.sleep(0.6)
    for engine in scene.redis:
        engine.ask("CLIENT", "PAUSE", 500, "ALL")
    scene.sleep(0.6)


@fault("kill-all-servers", quick=False)
def kill_all_servers(scene):
    for server in scene.servers:
        server.kill()
    scene.until_felt(0.5)
    for server in scene.servers:
        server.start()


@fault("chaos", quick=False, lasts=20, cluster={"relayed": (0, 1, 2), "append_only": True}, plan={"churn": "most"})
def chaos(scene):
    """Everything at any moment. The seed is in the environment: CHAOS=1."""
    dice = random.Random(int(os.environ.get("CHAOS", "1")))
    engines = scene.redis
    relays = [relay for relays in scene.cluster.relay_of.values() for relay in relays]

    def restart(process):
        process.kill()
        scene.sleep(dice.uniform(0.0, 0.5))
        process.restart()

    def pause(process):
        process.pause()
        scene.sleep(dice.uniform(0.0, 1.0))
        process.resume()

    def hold(relay):
        relay.held.value = dice.choice([BOTH, TO_REDIS, TO_SERVER])
        scene.sleep(dice.uniform(0.0, 1.0))
        relay.forget.value = dice.randrange(2)
        wait_for(lambda: not relay.forget.value, "the relay")
        relay.held.value = 0

    def trim(engine):
        engine.ask_all([("XTRIM", key, "MAXLEN", dice.choice([0, 1, 10])) for key in engine.keys("stream")])

    def jitter(relay):
        relay.jitter.value = dice.choice([0, 0, 5, 50])

    def expire(engine):
        engine.ask_all([("PEXPIRE", key, dice.randrange(1, 100))
                        for key in engine.keys(dice.choice(["hash", "stream", "string"]))])

    kill = lambda engine: engine.kill_connections(*dice.choice([("pubsub",), ("normal",), ("pubsub", "normal")]))
    deeds = [(restart, scene.servers), (restart, engines), (pause, scene.servers), (pause, engines), (hold, relays),
             (jitter, relays), (jitter, relays), (trim, engines), (expire, engines), (kill, engines), (kill, engines),
             (lambda engine: engine.ask("SCRIPT", "FLUSH"), engines), (lambda engine: engine.ask("FLUSHALL"), engines)]
    done = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        deed, targets = dice.choice(deeds)
        deed(dice.choice(targets))
        done.append(deed.__name__)
        scene.sleep(dice.uniform(0.0, 0.3))
    for relay in relays:
        relay.jitter.value = 0
    return f"{len(done)} deeds"


@fault("rooms-5000", quick=False, keeps=True,
       plan={"rooms": 5000, "receivers": 2, "senders": 12, "stay": 20, "churn": False})
def rooms_5000(scene):
    killed = 0
    for _ in range(3):
        scene.until_connected()
        killed += sum(engine.kill_connections("pubsub", "normal") for engine in scene.redis)
        scene.until_talked()
        scene.sleep(1)
    return f"{killed} connections killed"


def judge_room(room):
    return judge(*JOB[room], FAULT_END)


def judge_all(plan, results, fault_end):
    """Judges all rooms, in as many processes as there are cores."""
    global JOB, FAULT_END
    findings = Findings()
    rooms = {name: ([], []) for name in plan.rooms}
    for result in results:
        for room, texts in clients.texts_of(plan, result).items():
            rooms[plan.rooms[room]][0].extend(texts)
        for connection in result["connections"]:
            for span in spans_of(connection, findings):
                rooms[span.room][1].append(span)
        result["connections"].clear()
    JOB, FAULT_END = rooms, fault_end
    # A judge must end by SIGTERM at once: this process's handler could wait for ever in it.
    pool = multiprocessing.get_context("fork").Pool(os.cpu_count(), signal.signal, (signal.SIGTERM, signal.SIG_DFL))
    with pool:
        for found in pool.imap_unordered(judge_room, list(rooms), max(1, len(rooms) // 64)):
            findings.merge(found)
    return findings


def run(name, options):
    """Returns the row of this fault and its findings."""
    chosen = FAULTS[name]
    findings = Findings()
    redis = options.redis if not options.no_redis else 0
    start = time.monotonic()
    with Cluster(options.server, options.servers, redis, policy=options.policy, arguments=options.argument,
                 **chosen.cluster) as cluster:
        plan = clients.Plan(options.servers, **{"rooms": options.rooms, **chosen.plan})
        shared = clients.Shared(options.workers)
        files = [os.path.join(cluster.folder, f"worker{number}") for number in range(options.workers)]
        ports = [server.port for server in cluster.servers]
        fork = multiprocessing.get_context("fork")
        workers = [fork.Process(target=clients.work, args=(number, plan, ports, shared, file), daemon=True)
                   for number, file in enumerate(files)]
        for worker in workers:
            worker.start()
        effect, fault_end, others = "", None, set()

        def until(condition, what):
            def holds():
                if any(worker.exitcode for worker in workers):
                    raise Stuck("a worker has failed")
                if cluster.crashed():
                    raise Stuck("a server or Redis has ended")
                return condition()
            wait_for(holds, what, options.patience)

        talks = lambda texts: lambda: shared.sum(clients.SENT) >= texts
        all_fresh = lambda: shared.sum(clients.FRESH) == len(plan.senders)
        all_joined = lambda: shared.sum(clients.JOINED) == len(plan.receivers)
        try:
            shared.limit(options.texts / 3)
            shared.tell(clients.TALK, time.monotonic())
            # Those who wander are in no room now and then.
            until(lambda: talks(options.texts / 3)() and all_fresh(), "the first texts")
            if not plan.churn:
                until(all_joined, "the receivers to join")
            others = {key.decode().split(":")[1].rstrip("}") for engine in cluster.redis[1:]
                      for key in engine.keys("hash")}
            with shared.flow(options.texts / 3, options.texts * 2 / 3, chosen.lasts):
                effect = chosen.run(Scene(cluster, shared, options)) or ""
                fault_end = time.monotonic()
            shared.tell(clients.TALK, fault_end)
            time.sleep(0.05)  # for the workers' reports; what follows does not depend on it
            shared.limit(options.texts)
            until(lambda: talks(options.texts)() and all_fresh(), "a fresh text of each sender")
            shared.tell(clients.LAST, NEVER)
            until(all_joined, "all receivers to be back")
            shared.tell(clients.LAST, time.monotonic())
            until(lambda: all_fresh() and all_joined(), "the last texts")
            shared.tell(clients.SENDERS_LEAVE, time.monotonic())
            until(lambda: shared.sum(clients.SENDERS_GONE) == len(plan.senders), "the senders to leave")
            shared.tell(clients.RECEIVERS_LEAVE, time.monotonic())
            until(lambda: shared.sum(clients.RECEIVERS_GONE) == len(plan.receivers), "the receivers to leave")
        except Stuck as stuck:
            state = {key: shared.sum(getattr(clients, key)) for key in
                     ["SENT", "FRESH", "JOINED", "SENDERS_GONE", "RECEIVERS_GONE", "ERRS", "CUTS"]}
            findings.add("stuck", f"{stuck}; {state}")
        shared.all[3] = 1
        shared.tell(clients.RECEIVERS_LEAVE, NEVER)
        talked = time.monotonic() - start
        for worker in workers:
            worker.join(30)
            if worker.exitcode != 0:
                worker.kill()
                findings.add("stuck", f"a worker has ended with code {worker.exitcode}")
        for death in cluster.unexpected_deaths() + cluster.complaints():
            findings.add("crashed", death)
        cpu = [process.cpu() if not process.died() else 0 for process in cluster.processes]
    results = []
    for file in files:
        if os.path.exists(file):
            with open(file, "rb") as data:
                results.append(pickle.load(data))
            os.unlink(file)
    outcomes = collections.Counter()
    for result in results:
        for complaint in result["complaints"]:
            findings.add("protocol", complaint)
        for sender in result["senders"]:
            outcomes.update(sender[3])
    cut_senders = sum(result["cut_senders"] for result in results)
    cut_rooms = collections.Counter(room for result in results for room in result["cut_rooms"])
    cut_receivers = cut_rooms.total()
    if chosen.keeps and not options.quick and cut_senders + cut_receivers:
        findings.add("cut", "nobody may be disconnected by this fault", cut_senders + cut_receivers)
    if chosen.first and not options.quick:
        elsewhere = sum(cut_rooms[room] for room in others)
        if elsewhere:
            findings.add("cut", "nobody in a room of another Redis may be disconnected", elsewhere)
    judging = time.monotonic()
    findings.merge(judge_all(plan, results, fault_end))
    judged = time.monotonic() - judging
    resumed = {who: time for who, time in findings.resumed.items() if not plan.stay or who[0] == "s"}
    breaches = findings.breaches
    row = [name, f"{sum(outcomes.values()):,}", f"{findings.delivered:,}", breaches["doubled"], breaches["order"],
           breaches["invented"] + breaches["stale"] + breaches["denied"], breaches["lost"], cut_receivers, cut_senders,
           f"{outcomes[NO_REPLY]:,}", f"{outcomes[ERR]:,}", f"{findings.cut:,}", f"{findings.away:,}",
           f"{findings.deaf:.1f}",
           f"{max(resumed.values()) - fault_end:.2f}" if fault_end is not None and resumed else "-", effect]
    if not outcomes[OK] or not findings.delivered:
        findings.add("stuck", "nothing was delivered")
    if options.verbose:
        print(name, dict(sum((result["reasons"] for result in results), collections.Counter())), file=sys.stderr)
        print(f"{name}: {talked:.1f} s of talk, {judged:.1f} s of judging, CPU seconds {cpu}, {cluster.folder}",
              file=sys.stderr)
    if not breaches and not options.keep:
        shutil.rmtree(cluster.folder, ignore_errors=True)
    elif breaches:
        print(f"{name}: logs are in {cluster.folder}", file=sys.stderr)
    return row, findings


def print_row(cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="the program server")
    parser.add_argument("--faults", default="all", help="names with commas between, or all (the default)")
    parser.add_argument("--list", action="store_true", help="print the names of all faults, and exit")
    parser.add_argument("--texts", type=int, help="texts for each fault (100000; with --quick 6000)")
    parser.add_argument("--policy", default="pool", help="of the servers (pool)")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--redis", type=int, default=1, help="number of Redis servers; faults strike the first, or all")
    parser.add_argument("--no-redis", action="store_true", help="servers of their own, only for faults without Redis")
    parser.add_argument("--rooms", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2, help="processes that run the clients")
    parser.add_argument("--quick", action="store_true", help="small numbers, and no faults that last long")
    parser.add_argument("--patience", type=int, default=120, help="seconds after which something hangs")
    parser.add_argument("--argument", action="append", default=[], help="further argument for the servers")
    parser.add_argument("--keep", action="store_true", help="keep the folders with the logs")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    # Servers that know the same Redis by several addresses do not agree on which of several holds a room.
    possible = [name for name, chosen in FAULTS.items() if not (chosen.needs_redis and options.no_redis) and
                not (options.redis > 1 and "relayed" in chosen.cluster)]
    if options.list:
        print("\n".join(possible))
        return 0
    names = options.faults.split(",")
    if names == ["all"]:
        names = [name for name in possible if FAULTS[name].quick or not options.quick]
    for name in names:
        if name not in possible:
            parser.error(f"no fault named {name} (--list names them)")
    options.texts = options.texts or (6000 if options.quick else 100000)
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    failed = False
    for name in names:
        row, findings = run(name, options)
        print_row(row)
        for kind, count in findings.breaches.items():
            if count:
                failed = True
                print(f"{name}: {count} times {kind}:", file=sys.stderr)
                for example in findings.examples[kind]:
                    print("    " + example, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
