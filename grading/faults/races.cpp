// SPDX-License-Identifier: BSL-1.0
// racy_server PORT RACE: the student's server with one mistake that shows only when threads meet in a rare order.
//
// Students make such mistakes. None of them sleeps to make its race more likely. grading/perturb.c must find them.
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "student_server.hpp"

namespace {

using student::Client;
using student::Guard;
using student::MessageQueue;
using student::Room;
using student::Server;
using Reaches = std::function<bool(Client const&)>;

// --- Rooms ---

/// add() takes no lock: of two receivers that join at the same time, one may be lost.
class LostUpdate : public Room {
 public:
  using Room::Room;
  void add(Client& receiver) override {
    receivers_.insert(&receiver);
    receiver.reply("ok");
  }
};

/// Each function takes the lock, but a change takes two of them: a receiver may not be counted.
class CounterNotAtomic : public Room {
 public:
  using Room::Room;
  void add(Client& receiver) override {
    if (!contains(receiver)) set_count(count() + 1);
    Room::add(receiver);
  }
  void remove(Client& receiver) override {
    Room::remove(receiver);
    set_count(count() - 1);
  }
  void deliver(std::string const& line, Reaches const& reaches) override {
    if (count() > 0) Room::deliver(line, reaches);  // else nobody listens
  }

 private:
  bool contains(Client& receiver) {
    Guard const guard(lock_);
    return receivers_.count(&receiver) != 0;
  }
  int count() {
    Guard const guard(lock_);
    return count_;
  }
  void set_count(int count) {
    Guard const guard(lock_);
    count_ = count;
  }
  int count_ = 0;
};

/// The lock is held only while the receivers are copied: one of them may be deleted before its turn.
class UseAfterFree : public Room {
 public:
  using Room::Room;
  void deliver(std::string const& line, Reaches const& reaches) override {
    std::vector<Client*> receivers;
    {
      Guard const guard(lock_);
      receivers.assign(receivers_.begin(), receivers_.end());
    }
    for (Client* receiver : receivers)
      if (reaches(*receiver)) receiver->send(line);
  }
};

/// A broadcast "only reads", so it takes no lock: a receiver that leaves deletes the node to which the iterator points.
class BrokenIterator : public Room {
 public:
  using Room::Room;
  void deliver(std::string const& line, Reaches const& reaches) override {
    for (Client* receiver : receivers_)
      if (reaches(*receiver)) receiver->send(line);
  }
};

/// Locks the old room, then the new one. So does another receiver, on its way in the other direction.
class LockOrder : public Room {
 public:
  using Room::Room;
  void move(Client& receiver, LockOrder& to) {
    Guard const here(lock_);
    Guard const there(to.lock_);
    receivers_.erase(&receiver);
    to.receivers_.insert(&receiver);
    receiver.reply("ok");
  }
};

// --- Queues ---

/// "The semaphore is enough."
class UnlockedQueue : public MessageQueue {
 public:
  bool push(std::string const& line) override {
    if (lines_.size() == most) return false;
    lines_.push_back(line);
    sem_post(&waiting_);
    return true;
  }
  bool pop(std::string& line) override {
    sem_wait(&waiting_);
    if (lines_.empty()) return false;
    line = std::move(lines_.front());
    lines_.pop_front();
    return true;
  }
};

/// Checks the condition before it takes the lock: a signal that comes in between wakes nobody.
class MissedWakeUp : public MessageQueue {
 public:
  bool push(std::string const& line) override {
    {
      Guard const guard(lock_);
      if (lines_.size() == most) return false;
      lines_.push_back(line);
    }
    pthread_cond_signal(&changed_);
    return true;
  }
  bool pop(std::string& line) override {
    while (idle()) {
      Guard const guard(lock_);
      pthread_cond_wait(&changed_, &lock_);
    }
    Guard const guard(lock_);
    if (lines_.empty()) return false;
    line = std::move(lines_.front());
    lines_.pop_front();
    return true;
  }
  void finish() override {
    Guard const guard(lock_);
    finished_ = true;
    pthread_cond_signal(&changed_);
  }
  bool idle() {
    Guard const guard(lock_);
    return lines_.empty() && !finished_;
  }

 private:
  bool finished_ = false;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
};

class AskableQueue : public MessageQueue {
 public:
  bool empty() {
    Guard const guard(lock_);
    return lines_.empty();
  }
};

// --- Clients ---

class WithUnlockedQueue : public Client {
 public:
  using Client::Client;
  std::unique_ptr<MessageQueue> make_queue() override { return std::make_unique<UnlockedQueue>(); }
};

class WithMissedWakeUp : public Client {
 public:
  using Client::Client;
  std::unique_ptr<MessageQueue> make_queue() override { return std::make_unique<MissedWakeUp>(); }
};

class WithLockOrder : public Client {
 public:
  using Client::Client;
  void join(std::string const& room) override {
    if (role_ != Role::receiver || room_ == nullptr || !is_name(room)) return Client::join(room);
    Room& next = server_.room(room);
    if (&next == room_) return Client::join(room);
    static_cast<LockOrder*>(room_)->move(*this, static_cast<LockOrder&>(next));
    room_ = &next;
  }
};

/// A reply is written at once when nothing waits before it. The line that the other thread is writing does not wait.
class ReplyWithinDelivery : public Client {
 public:
  using Client::Client;
  std::unique_ptr<MessageQueue> make_queue() override { return std::make_unique<AskableQueue>(); }
  void reply(std::string const& tag, std::string const& text) override {
    if (role_ == Role::receiver && tag == "err" && static_cast<AskableQueue*>(queue_.get())->empty())
      write_all(tag + ":" + text + "\n");
    else
      Client::reply(tag, text);
  }
};

/// Its queue is deleted by hand.
class WithOwnQueue : public Client {
 public:
  using Client::Client;
  void send(std::string const& line) override {
    if (own_ == nullptr) return Client::send(line);
    if (!own_->push(line + "\n")) shutdown(connection_, SHUT_RDWR);
  }
  std::unique_ptr<MessageQueue> make_queue() override {
    own_ = new MessageQueue;
    return nullptr;
  }
  void write_lines() override {
    std::string line;
    while (own_->pop(line)) write_all(line);
  }

 protected:
  MessageQueue* own_ = nullptr;
};

/// Two threads use the queue, and the last of them deletes it. Each may take itself for the last.
class DoubleDelete : public WithOwnQueue {
 public:
  DoubleDelete(Server& server, int connection) : WithOwnQueue(server, connection) {
    pthread_mutex_init(&lock_, nullptr);
  }
  ~DoubleDelete() override { pthread_mutex_destroy(&lock_); }
  void write_lines() override {
    WithOwnQueue::write_lines();
    stop_using();
    if (users() == 0) delete own_;
  }
  void run() override {
    read_lines();
    forget();
    if (own_ != nullptr) {
      own_->finish();
      stop_using();
      if (users() == 0) delete own_;
      pthread_join(writer_, nullptr);
    }
    hang_up();
  }

 private:
  void stop_using() {
    Guard const guard(lock_);
    --users_;
  }
  int users() {
    Guard const guard(lock_);
    return users_;
  }
  int users_ = 2;
  pthread_mutex_t lock_{};
};

/// The writer destroys the queue and its lock when it ends: the receiver is still in its room for a moment.
class DestroyedMutex : public WithOwnQueue {
 public:
  using WithOwnQueue::WithOwnQueue;
  void write_lines() override {
    WithOwnQueue::write_lines();
    delete own_;
  }
  void run() override {
    read_lines();
    if (own_ != nullptr) own_->finish();
    forget();
    if (own_ != nullptr) pthread_join(writer_, nullptr);
    hang_up();
  }
};

// --- The server ---

struct Race {
  char const* name;
  int (*serve)(int argc, char** argv);
};

constexpr Race races[] = {
    {"lost-update", student::serve<Client, LostUpdate>},
    {"unlocked-queue", student::serve<WithUnlockedQueue>},
    {"use-after-free", student::serve<Client, UseAfterFree>},
    {"double-delete", student::serve<DoubleDelete>},
    {"missed-wake-up", student::serve<WithMissedWakeUp>},
    {"lock-order", student::serve<WithLockOrder, LockOrder>},
    {"broken-iterator", student::serve<Client, BrokenIterator>},
    {"reply-within-delivery", student::serve<ReplyWithinDelivery>},
    {"counter-not-atomic", student::serve<Client, CounterNotAtomic>},
    {"destroyed-mutex", student::serve<DestroyedMutex>},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3)
    for (Race const& race : races)
      if (std::strcmp(argv[2], race.name) == 0) return race.serve(2, argv);
  std::fprintf(stderr, "usage: racy_server PORT RACE; the races:");
  for (Race const& race : races) std::fprintf(stderr, " %s", race.name);
  std::fprintf(stderr, "\n");
  return 1;
}
