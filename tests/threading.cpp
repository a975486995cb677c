// SPDX-License-Identifier: BSL-1.0
#include <chatproto/threading.hpp>

#include <chatproto/server.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/strand.hpp>
#include <asio/thread_pool.hpp>

#include "catch.hpp"
#include "socket_support.hpp"

using chatproto::StrandPool;
using chatproto::ThreadingPolicy;
using chatproto::ThreadPerClient;
using chatproto::ThreadPool;

namespace {

/// A user-defined policy: all clients in one thread.
class OneThread {
 public:
  using executor_type = asio::io_context::executor_type;

  OneThread() : work_(context_.get_executor()), thread_([this] { context_.run(); }) {}
  ~OneThread() { join(); }
  executor_type next_executor() { return context_.get_executor(); }
  void join() {
    work_.reset();
    if (thread_.joinable()) thread_.join();
  }

 private:
  asio::io_context context_{1};
  asio::executor_work_guard<executor_type> work_;
  std::thread thread_;
};

/// A user-defined policy: strands on an asio::thread_pool.
class PoolOfAsio {
 public:
  using executor_type = asio::strand<asio::thread_pool::executor_type>;

  explicit PoolOfAsio(unsigned threads) : pool_(threads) {}
  executor_type next_executor() { return executor_type(pool_.get_executor()); }
  void join() { pool_.join(); }

 private:
  asio::thread_pool pool_;
};

struct NoJoin {
  using executor_type = OneThread::executor_type;
  executor_type next_executor();
};
struct OtherExecutor {
  using executor_type = OneThread::executor_type;
  asio::io_context& next_executor();
  void join();
};
struct NoType {
  OneThread::executor_type next_executor();
  void join();
};
static_assert(ThreadingPolicy<ThreadPerClient> && ThreadingPolicy<ThreadPool> && ThreadingPolicy<StrandPool>);
static_assert(ThreadingPolicy<OneThread> && ThreadingPolicy<PoolOfAsio>);
static_assert(!ThreadingPolicy<NoJoin> && !ThreadingPolicy<OtherExecutor> && !ThreadingPolicy<NoType>);
static_assert(!ThreadingPolicy<int> && !ThreadingPolicy<ThreadPool const>);

template <class Policy>
std::unique_ptr<Policy> make(unsigned threads) {
  if constexpr (std::constructible_from<Policy, unsigned>)
    return std::make_unique<Policy>(threads);
  else
    return std::make_unique<Policy>();
}

}  // namespace

TEMPLATE_TEST_CASE("handlers of one executor never overlap, and keep their order", "[threading]", ThreadPerClient,
                   ThreadPool, StrandPool, OneThread, PoolOfAsio) {
  constexpr auto executors = 4, handlers = 500;
  struct Client {
    std::atomic<int> inside = 0;
    int ran = 0;  // not atomic: a sanitizer detects overlapping handlers
    bool overlapped = false, ordered = true;
  };
  std::vector<Client> clients(executors);
  auto const policy = make<TestType>(3);
  {
    std::vector<typename TestType::executor_type> of;
    for (auto i = 0; i < executors; ++i) of.push_back(policy->next_executor());
    for (auto i = 0; i < handlers; ++i)
      for (std::size_t c = 0; c < executors; ++c)
        asio::post(of[c], [&client = clients[c], i] {
          if (client.inside++ != 0) client.overlapped = true;
          if (client.ran++ != i) client.ordered = false;
          std::this_thread::yield();
          --client.inside;
        });
  }
  policy->join();
  for (auto const& client : clients) {
    CHECK(client.ran == handlers);
    CHECK_FALSE(client.overlapped);
    CHECK(client.ordered);
  }
}

TEMPLATE_TEST_CASE("join ends the threads, repeatedly, whether they were used or not", "[threading]", ThreadPerClient,
                   ThreadPool, StrandPool) {
  auto const policy = make<TestType>(3);
  std::atomic<int> ran = 0;
  auto const used = GENERATE(false, true);
  if (used)
    for (auto i = 0; i < 5; ++i) asio::post(policy->next_executor(), [&] { ++ran; });
  policy->join();
  CHECK(ran == (used ? 5 : 0));
  policy->join();
}

TEMPLATE_TEST_CASE("a policy that is destroyed joins its threads", "[threading]", ThreadPerClient, ThreadPool,
                   StrandPool) {
  std::atomic<int> ran = 0;
  {
    auto const policy = make<TestType>(2);
    for (auto i = 0; i < 5; ++i) asio::post(policy->next_executor(), [&] { ++ran; });
  }
  CHECK(ran == 5);
}

namespace {

/// Returns the threads in which the handlers of `count` clients run. If `meet` is set, all handlers wait for each
/// other.
template <class Policy>
std::set<std::thread::id> threads_of(Policy& policy, std::size_t count, bool meet) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<std::size_t> inside = 0;
  for (std::size_t i = 0; i < count; ++i)
    asio::post(policy.next_executor(), [&] {
      ++inside;
      if (meet) test::eventually([&] { return inside == count; });
      std::lock_guard const lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
  policy.join();
  return threads;
}

}  // namespace

TEST_CASE("thread per client: each executor has a thread of its own", "[threading]") {
  ThreadPerClient policy;
  CHECK(threads_of(policy, 5, true).size() == 5);
}

TEST_CASE("thread pool: the threads take turns", "[threading]") {
  ThreadPool policy(3);
  CHECK(threads_of(policy, 3, true).size() == 3);
  ThreadPool same(3);
  CHECK(threads_of(same, 7, false).size() == 3);
}

TEST_CASE("strand pool: any thread serves any client", "[threading]") {
  StrandPool policy(3);
  CHECK(threads_of(policy, 3, true).size() == 3);
}

#ifdef __linux__
TEST_CASE("thread per client: a client that has ended leaves nothing open", "[threading]") {
  ThreadPerClient policy;
  auto const one_client = [&] {
    std::atomic<bool> ran = false;
    asio::post(policy.next_executor(), [&] { ran = true; });
    return test::eventually([&] { return ran.load(); });
  };
  REQUIRE(one_client());
  auto const base = test::descriptors();
  for (auto i = 0; i < 50; ++i) REQUIRE(one_client());
  CHECK(test::eventually([&] { return test::descriptors() <= base; }));
}
#endif

TEMPLATE_TEST_CASE("a policy of the user's own carries the whole chat", "[threading]", OneThread, PoolOfAsio) {
  test::ServerThread<TestType> server;
  CHECK(test::converse(server.port()) == "");
  CHECK(test::eventually([&] { return server->service().room_count() == 0; }));
  server->stop();
  CHECK(server.ended());
}
