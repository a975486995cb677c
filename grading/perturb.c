// SPDX-License-Identifier: BSL-1.0
// Makes the races of a server show: a library for LD_PRELOAD around an unchanged program, on Linux with glibc.
//
//     cc -shared -fPIC -O2 -o libchatproto-perturb.so perturb.c -ldl
//     CHATPROTO_PERTURB=17 LD_PRELOAD=$PWD/libchatproto-perturb.so ./server 47374
//
// The number is a seed. It chooses, for each thread and each kind of call, where the thread yields or sleeps (from a
// microsecond to a few milliseconds): before a lock and after an unlock, around conditions, semaphores, the start of
// threads, reads, writes, closes and memory, so that threads meet in orders that are rare otherwise. The same seed
// gives the same choices; when the threads run is still the system's choice.
//
// It does nothing to a program that POSIX or Linux might not do as well, so a correct program only becomes slower:
// - All delays of all threads together are at most half of the time that has passed.
// - A read from a TCP connection may give less than has come. A write to one that blocks is done in two parts, between
//   which others may write, as in a write for which the system has no room; one that does not block may take less. A
//   program that uses epoll with EPOLLET may take a short read or write for "no more room"; it gets none.
// - A call is interrupted (EINTR) only if the program has a signal handler that would interrupt it.
// - A condition's wait may end without a signal.
// - New memory is filled with 0xa5, freed memory with 0xdb, and it is not used again for a while.
//
// What is certainly wrong ends the program with one line on stderr ("chatproto-perturb: seed 17: ...") and SIGABRT:
// memory freed twice or written after it was freed; a mutex locked after its destruction, destroyed while it is locked,
// or unlocked by a thread that does not hold it; threads that wait for each other's mutexes. It is not for programs
// that are statically linked, bring their own malloc, or were built with a sanitizer.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// --- Choices ---------------------------------------------------------------------------------------------------------

enum kind { lock, unlock, condition, semaphore, thread, input, output, closing, memory, kinds };

static bool active;  // set once, before main()
static uint64_t seed;
static struct {
  unsigned yields, sleeps;  // of 4096
} rates[kinds];
static unsigned longest;  // sleep: 2 to this power, in microseconds
static uint64_t began;
static _Atomic uint64_t slept;  // by all threads, in nanoseconds
static _Atomic unsigned threads = 1;
static atomic_bool edge_triggered;

static __thread struct {
  uint64_t random;
  unsigned number;  // 0: the first thread
  unsigned haste;   // of 4; 0: a thread that is not delayed
  bool ready, inside;
} self __attribute__((tls_model("initial-exec")));

static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static uint64_t next_random(void) {
  if (!self.ready) {
    self.random = mix(seed * 1000003 + self.number);
    self.haste = (unsigned)(self.random >> 60) % 4;
    self.ready = true;
  }
  self.random += 0x9e3779b97f4a7c15u;
  return mix(self.random);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// Sleeps, or with 0 only yields, which on a busy machine may take as long.
static void lose_time(uint64_t nanoseconds) {
  uint64_t const start = now();
  if (atomic_load(&slept) + nanoseconds > (start - began) / 2 + 20000000) return;
  struct timespec const time = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  if (nanoseconds == 0)
    sched_yield();
  else
    syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, NULL);  // not a cancellation point
  atomic_fetch_add(&slept, now() - start);
}

/// A place at which a thread may lose time.
static void point(enum kind kind) {
  if (!active || self.inside) return;
  int const saved = errno;
  uint64_t const random = next_random();
  unsigned const yields = (unsigned)(random & 4095), sleeps = (unsigned)(random >> 12 & 4095);
  if (sleeps < rates[kind].sleeps * self.haste / 2)
    lose_time((1000u << ((random >> 24) % (longest + 1))) + (random >> 40 & 1023));
  else if (yields < rates[kind].yields)
    lose_time(0);
  errno = saved;
}

static bool chance(unsigned of_4096) { return active && !self.inside && (next_random() & 4095) < of_4096; }

// --- Findings --------------------------------------------------------------------------------------------------------

static void found(char const* what) {
  self.inside = true;
  char line[256];
  int const size = snprintf(line, sizeof line, "chatproto-perturb: seed %llu: %s\n", (unsigned long long)seed, what);
  if (write(STDERR_FILENO, line, (size_t)size) == size) {
    void* frames[12];
    backtrace_symbols_fd(frames + 1, backtrace(frames, 12) - 1, STDERR_FILENO);
  }
  abort();
}

// clang-format off
#define REPLACED(X) \
  X(accept) X(close) X(epoll_ctl) X(pthread_cond_broadcast) X(pthread_cond_signal) X(pthread_cond_timedwait) \
  X(pthread_cond_wait) X(pthread_create) X(pthread_join) X(pthread_mutex_destroy) X(pthread_mutex_lock) \
  X(pthread_mutex_timedlock) X(pthread_mutex_trylock) X(pthread_mutex_unlock) X(pthread_rwlock_rdlock) \
  X(pthread_rwlock_unlock) X(pthread_rwlock_wrlock) X(read) X(recv) X(recvmsg) X(sem_post) X(sem_timedwait) \
  X(sem_wait) X(send) X(sendmsg) X(shutdown) X(write) X(writev)
// clang-format on
#define DECLARE(name) static __typeof__(&name) real_##name;
REPLACED(DECLARE)
#define FIND(name) \
  if (real_##name == NULL) real_##name = (__typeof__(&name))find(#name);

/// The functions of conditions have an older version too, which dlsym() would find.
static void* find(char const* name) {
  void* symbol = strncmp(name, "pthread_cond_", 13) == 0 ? dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2") : NULL;
  if (symbol == NULL) symbol = dlsym(RTLD_NEXT, name);
  if (symbol == NULL) abort();
  return symbol;
}

/// Finds the function that is replaced. This happens once, before main(): it must not happen within dlerror().
#define REAL(name) \
  FIND(name)       \
  __typeof__(&name) const real = real_##name

/// Replaces a function by one that may lose time before and after.
#define DELAYED(kind, type, name, parameters, arguments) \
  type name parameters {                                 \
    REAL(name);                                          \
    point(kind);                                         \
    type const result = real arguments;                  \
    point(kind);                                         \
    return result;                                       \
  }

// --- Mutexes ---------------------------------------------------------------------------------------------------------

static pid_t id_of_thread(void) {
  static __thread pid_t id __attribute__((tls_model("initial-exec")));
  if (id == 0) id = gettid();
  return id;
}

/// The threads that wait for a mutex.
static struct waiter {
  _Atomic pid_t thread;
  _Atomic(pthread_mutex_t*) mutex;
  _Atomic uint64_t number;  // another one for each wait
} waiters[1024];
enum { most_waiters = sizeof waiters / sizeof *waiters };
static _Atomic uint64_t waits;

static struct waiter* begin_to_wait(pthread_mutex_t* mutex) {
  for (int i = 0; i < most_waiters; ++i) {
    pid_t nobody = 0;
    if (!atomic_compare_exchange_strong(&waiters[i].thread, &nobody, id_of_thread())) continue;
    atomic_store(&waiters[i].number, atomic_fetch_add(&waits, 1) + 1);
    atomic_store(&waiters[i].mutex, mutex);
    return &waiters[i];
  }
  return NULL;
}

static void end_waiting(struct waiter* waiter) {
  if (waiter == NULL) return;
  atomic_store(&waiter->mutex, NULL);
  atomic_store(&waiter->thread, 0);
}

/// Returns a number for the circle of threads in which this one waits, the same as long as none of them goes on; 0 if
/// there is none.
static uint64_t circle(struct waiter const* first, int* length) {
  pthread_mutex_t* mutex = atomic_load(&first->mutex);
  uint64_t result = 0;
  for (*length = 1; *length < 16; ++*length) {
    pid_t const owner = __atomic_load_n(&mutex->__data.__owner, __ATOMIC_SEQ_CST);
    struct waiter const* next = NULL;
    for (int i = 0; i < most_waiters && next == NULL; ++i)
      if (owner != 0 && atomic_load(&waiters[i].thread) == owner) next = &waiters[i];
    if (next == NULL || (mutex = atomic_load(&next->mutex)) == NULL) return 0;
    result = mix(result ^ atomic_load(&next->number) ^ (uint64_t)(uintptr_t)mutex);
    if (next == first) return result | 1;
  }
  return 0;
}

/// Waits as pthread_mutex_lock() does, and notices when the wait will never end.
static int wait_for_lock(pthread_mutex_t* mutex) {
  REAL(pthread_mutex_timedlock);
  struct waiter* const waiter = begin_to_wait(mutex);
  uint64_t before = 0;
  for (;;) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    if ((until.tv_nsec += 200000000) >= 1000000000) ++until.tv_sec, until.tv_nsec -= 1000000000;
    int const error = real(mutex, &until);
    if (error == ETIMEDOUT && waiter != NULL) {
      int length = 0;
      uint64_t const one = circle(waiter, &length);
      if (one != 0 && one == before)
        found(length == 1 ? "deadlock: a thread waits for a mutex that it holds itself"
                          : "deadlock: threads wait for each other's mutexes");
      before = one;
    } else if (error != ETIMEDOUT) {
      end_waiting(waiter);
      return error;
    }
  }
}

static bool destroyed(pthread_mutex_t const* mutex) {
  int const kind = mutex->__data.__kind;
  return kind == -1 || kind == (int)0xdbdbdbdb;
}

int pthread_mutex_lock(pthread_mutex_t* mutex) {
  point(lock);
  REAL(pthread_mutex_lock);
  if (!active) return real(mutex);
  if (destroyed(mutex)) found("a mutex was locked after it had been destroyed");
  int error = real_pthread_mutex_trylock(mutex);
  if (error == EBUSY) error = wait_for_lock(mutex);
  if (error == EINVAL && destroyed(mutex)) found("a mutex was destroyed while a thread waited for it");
  return error;
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) {
  REAL(pthread_mutex_unlock);
  if (active) {
    if (destroyed(mutex)) found("a mutex was unlocked after it had been destroyed");
    pid_t const owner = __atomic_load_n(&mutex->__data.__owner, __ATOMIC_SEQ_CST);
    if (owner != id_of_thread()) found("a mutex was unlocked by a thread that did not hold it");
  }
  int const error = real(mutex);
  point(unlock);
  return error;
}

int pthread_mutex_destroy(pthread_mutex_t* mutex) {
  point(lock);
  REAL(pthread_mutex_destroy);
  if (active && destroyed(mutex)) found("a mutex was destroyed twice");
  int const error = real(mutex);
  if (active && error == EBUSY) found("a mutex was destroyed while it was locked");
  return error;
}

#define RWLOCK(name, before, after)    \
  int name(pthread_rwlock_t* rwlock) { \
    REAL(name);                        \
    before;                            \
    int const error = real(rwlock);    \
    after;                             \
    return error;                      \
  }
RWLOCK(pthread_rwlock_rdlock, point(lock), )
RWLOCK(pthread_rwlock_wrlock, point(lock), )
RWLOCK(pthread_rwlock_unlock, , point(unlock))

// --- Conditions, semaphores, threads ---------------------------------------------------------------------------------

/// Ends a wait although nobody has signalled: POSIX allows this, so programs must check their condition again.
static void wake_without_a_call(pthread_mutex_t* mutex) {
  pthread_mutex_unlock(mutex);
  lose_time(0);
  pthread_mutex_lock(mutex);
}

int pthread_cond_wait(pthread_cond_t* cond, pthread_mutex_t* mutex) {
  REAL(pthread_cond_wait);
  point(condition);
  if (chance(64)) return wake_without_a_call(mutex), 0;
  int const error = real(cond, mutex);
  point(condition);
  return error;
}

int pthread_cond_timedwait(pthread_cond_t* cond, pthread_mutex_t* mutex, struct timespec const* until) {
  REAL(pthread_cond_timedwait);
  point(condition);
  if (chance(64)) return wake_without_a_call(mutex), 0;
  int const error = real(cond, mutex, until);
  point(condition);
  return error;
}

DELAYED(condition, int, pthread_cond_signal, (pthread_cond_t * cond), (cond))
DELAYED(condition, int, pthread_cond_broadcast, (pthread_cond_t * cond), (cond))

/// Whether a signal could interrupt a call: the program handles one, and not so that calls go on after it.
static bool interruptible(void) {
  for (int number = 1; number < 32; ++number) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN &&
        (action.sa_flags & SA_RESTART) == 0)
      return true;
  }
  return false;
}

static bool interrupted(void) {
  if (!chance(64) || !interruptible()) return false;
  errno = EINTR;
  return true;
}

int sem_wait(sem_t* sem) {
  REAL(sem_wait);
  point(semaphore);
  if (interrupted()) return -1;
  int const result = real(sem);
  point(semaphore);
  return result;
}

DELAYED(semaphore, int, sem_timedwait, (sem_t * sem, struct timespec const* until), (sem, until))
DELAYED(semaphore, int, sem_post, (sem_t * sem), (sem))

struct start {
  void* (*routine)(void*);
  void* argument;
  unsigned number;
};

static void* start(void* given) {
  struct start const own = *(struct start*)given;
  free(given);
  self.number = own.number;
  point(thread);
  return own.routine(own.argument);
}

int pthread_create(pthread_t* id, pthread_attr_t const* attributes, void* (*routine)(void*), void* argument) {
  REAL(pthread_create);
  if (!active) return real(id, attributes, routine, argument);
  struct start* const given = malloc(sizeof *given);
  if (given == NULL) return EAGAIN;
  *given = (struct start){routine, argument, atomic_fetch_add(&threads, 1)};
  int const error = real(id, attributes, start, given);
  if (error != 0) free(given);
  point(thread);
  return error;
}

int pthread_join(pthread_t id, void** result) {
  REAL(pthread_join);
  point(thread);
  return real(id, result);
}

// --- Connections -----------------------------------------------------------------------------------------------------

enum way { untouched, blocks, does_not_block };

static enum way way_of(int file, int flags) {
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(file, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || (domain != AF_INET && domain != AF_INET6))
    return untouched;
  size = sizeof type;
  if (getsockopt(file, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) return untouched;
  if ((flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)) != 0) return untouched;
  return (flags & MSG_DONTWAIT) != 0 || (fcntl(file, F_GETFL) & O_NONBLOCK) != 0 ? does_not_block : blocks;
}

/// Returns how many of `size` bytes to take at first; 0: leave the call as it is.
static size_t first_part(int file, size_t size, int flags, enum way* way) {
  if (size < 2 || !chance(512)) return 0;
  int const saved = errno;
  *way = way_of(file, flags);
  errno = saved;
  if (*way == untouched) return 0;
  uint64_t const random = next_random();
  return 1 + (size_t)(random >> 8) % ((random & 3) == 0 || size < 20 ? size - 1 : 19);
}

/// Returns how much a read may take.
static size_t to_read(int file, size_t size, int flags) {
  enum way way = untouched;
  size_t const part = first_part(file, size, flags, &way);
  return part == 0 || (way == does_not_block && atomic_load(&edge_triggered)) ? size : part;
}

static bool read_interrupted(int file, int flags) {
  return chance(64) && way_of(file, flags) == blocks && interrupted();
}

ssize_t read(int file, void* data, size_t size) {
  REAL(read);
  point(input);
  if (read_interrupted(file, 0)) return -1;
  ssize_t const result = real(file, data, to_read(file, size, 0));
  point(input);
  return result;
}

ssize_t recv(int file, void* data, size_t size, int flags) {
  REAL(recv);
  point(input);
  if (read_interrupted(file, flags)) return -1;
  ssize_t const result = real(file, data, to_read(file, size, flags), flags);
  point(input);
  return result;
}

// What read() and recv() become with _FORTIFY_SOURCE.
ssize_t __read_chk(int file, void* data, size_t size, size_t room) {
  if (size > room) abort();
  return read(file, data, size);
}

ssize_t __recv_chk(int file, void* data, size_t size, size_t room, int flags) {
  if (size > room) abort();
  return recv(file, data, size, flags);
}

DELAYED(input, ssize_t, recvmsg, (int file, struct msghdr* message, int flags), (file, message, flags))

/// Sends a part first. The rest goes to the same connection even if another thread closes the descriptor meanwhile and
/// somebody else gets its number: within one call, the system does so too.
static ssize_t send_in_two(int file, void const* data, size_t size, int flags, size_t part, enum way way) {
  bool const all = way == blocks || atomic_load(&edge_triggered);
  int const copy = all ? fcntl(file, F_DUPFD_CLOEXEC, 0) : -1;
  ssize_t result = real_send(file, data, all && copy < 0 ? size : part, flags);
  int const saved = errno;
  if (copy >= 0 && result == (ssize_t)part) {
    lose_time(0);
    point(output);
    ssize_t const more = real_send(copy, (char const*)data + part, size - part, flags);
    if (more > 0) result += more;
  }
  if (copy >= 0) real_close(copy);
  errno = saved;
  return result;
}

#define SENDING(name, parameters, arguments, flags)                                                      \
  ssize_t name parameters {                                                                              \
    REAL(name);                                                                                          \
    point(output);                                                                                       \
    enum way way = untouched;                                                                            \
    size_t const part = first_part(file, size, flags, &way);                                             \
    ssize_t const result = part == 0 ? real arguments : send_in_two(file, data, size, flags, part, way); \
    point(output);                                                                                       \
    return result;                                                                                       \
  }
SENDING(send, (int file, void const* data, size_t size, int flags), (file, data, size, flags), flags)
SENDING(write, (int file, void const* data, size_t size), (file, data, size), 0)

DELAYED(output, ssize_t, sendmsg, (int file, struct msghdr const* message, int flags), (file, message, flags))
DELAYED(output, ssize_t, writev, (int file, struct iovec const* parts, int count), (file, parts, count))

int accept(int file, struct sockaddr* address, socklen_t* size) {
  REAL(accept);
  if (read_interrupted(file, 0)) return -1;
  int const result = real(file, address, size);
  point(input);
  return result;
}

DELAYED(closing, int, shutdown, (int file, int how), (file, how))
DELAYED(closing, int, close, (int file), (file))

int epoll_ctl(int epoll, int what, int file, struct epoll_event* event) {
  REAL(epoll_ctl);
  if (event != NULL && (event->events & (uint32_t)EPOLLET) != 0) atomic_store(&edge_triggered, true);
  return real(epoll, what, file, event);
}

// --- Memory ----------------------------------------------------------------------------------------------------------

enum { kept_blocks = 4096, kept_bytes = 8 << 20, largest_kept = 64 << 10, buckets = 4 * kept_blocks };
static struct {
  void* block;
  size_t size;
} kept[kept_blocks];           // freed, but not yet given back; a ring
static void* bucket[buckets];  // the same blocks by address
static size_t oldest, kept_count, kept_size;
static atomic_flag keeping = ATOMIC_FLAG_INIT;

static size_t place(void const* block) { return (size_t)(mix((uint64_t)(uintptr_t)block) % buckets); }

static bool is_kept(void const* block) {
  for (size_t i = place(block); bucket[i] != NULL; i = (i + 1) % buckets)
    if (bucket[i] == block) return true;
  return false;
}

static void add_to_bucket(void* block) {
  size_t i = place(block);
  while (bucket[i] != NULL) i = (i + 1) % buckets;
  bucket[i] = block;
}

static void remove_from_bucket(void const* block) {
  size_t i = place(block);
  while (bucket[i] != block) i = (i + 1) % buckets;
  bucket[i] = NULL;
  for (i = (i + 1) % buckets; bucket[i] != NULL; i = (i + 1) % buckets) {  // what had to go to a later bucket
    void* const other = bucket[i];
    bucket[i] = NULL;
    add_to_bucket(other);
  }
}

extern void* __libc_malloc(size_t);
extern void __libc_free(void*);

static void* (*real_malloc)(size_t) = __libc_malloc;
static void (*real_free)(void*) = __libc_free;

void* malloc(size_t size) {
  void* const block = real_malloc(size);
  if (!active || self.inside) return block;
  if (block != NULL && size <= largest_kept) memset(block, 0xa5, size);
  point(memory);
  return block;
}

/// Takes the oldest block out of the ring.
static void* give_back(void) {
  void* const block = kept[oldest].block;
  unsigned char const* const bytes = block;
  size_t const size = kept[oldest].size;
  for (size_t i = 0; i < size && i < 512; ++i)
    if (bytes[i] != 0xdb) found("memory was written after it had been freed");
  remove_from_bucket(block);
  oldest = (oldest + 1) % kept_blocks;
  --kept_count;
  kept_size -= size;
  return block;
}

void free(void* block) {
  if (block == NULL || !active || self.inside) return real_free(block);
  size_t const size = malloc_usable_size(block);
  if (size > largest_kept) return real_free(block);
  int const saved = errno;
  void* old[2] = {NULL, NULL};
  while (atomic_flag_test_and_set(&keeping)) sched_yield();
  if (is_kept(block)) found("memory was freed twice");
  if (kept_count == kept_blocks || (kept_count != 0 && kept_size + size > kept_bytes)) old[0] = give_back();
  if (kept_count != 0 && kept_size + size > kept_bytes) old[1] = give_back();
  memset(block, 0xdb, size);
  size_t const last = (oldest + kept_count++) % kept_blocks;
  kept[last].block = block;
  kept[last].size = size;
  kept_size += size;
  add_to_bucket(block);
  atomic_flag_clear(&keeping);
  real_free(old[0]);
  real_free(old[1]);
  errno = saved;
  point(memory);
}

// --- The beginning ---------------------------------------------------------------------------------------------------

static void in_child(void) { active = false; }

__attribute__((constructor)) static void begin(void) {
  REPLACED(FIND)
  char const* const given = getenv("CHATPROTO_PERTURB");
  if (given == NULL || *given == '\0') return;
  char* end = NULL;
  seed = strtoull(given, &end, 10);
  if (*end != '\0') {
    fprintf(stderr, "chatproto-perturb: CHATPROTO_PERTURB is no number: %s\n", given);
    _exit(2);
  }
  // Each seed chooses which kinds of calls are delayed, how often and for how long.
  static unsigned const often[] = {0, 8, 32, 128, 512, 1024};
  self.random = mix(seed);
  self.ready = true;
  for (int i = 0; i < kinds; ++i) {
    rates[i].yields = often[next_random() % 6];
    rates[i].sleeps = often[next_random() % 5];
  }
  rates[memory].yields /= 4;
  rates[memory].sleeps /= 4;
  longest = 5 + (unsigned)(next_random() % 7);  // 32 microseconds to 2 milliseconds
  self.ready = false;
  began = now();
  prctl(PR_SET_TIMERSLACK, 1000UL);
  pthread_atfork(NULL, NULL, in_child);
  void* frames[1];
  backtrace(frames, 1);  // its first use loads a library
  active = true;
}
