// SPDX-License-Identifier: BSL-1.0
// A chat server as a good student writes it, with nothing but POSIX: a thread for each client, a lock for each room,
// and for each receiver a queue of what it is to get and a second thread that writes it.
//
// It keeps the whole protocol, and shares no code with the library. The suite is tested with servers that are derived
// from it, each with one fault: the virtual functions are the places where implementers make them.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include <pthread.h>
#include <semaphore.h>

namespace student {

class Client;

/// Holds a lock until the end of the block.
class Guard {
 public:
  explicit Guard(pthread_mutex_t& lock) : lock_(lock) { pthread_mutex_lock(&lock_); }
  ~Guard() { pthread_mutex_unlock(&lock_); }
  Guard(Guard const&) = delete;
  Guard& operator=(Guard const&) = delete;

 private:
  pthread_mutex_t& lock_;
};

/// The lines that a receiver has still to get.
class MessageQueue {
 public:
  MessageQueue();
  virtual ~MessageQueue();
  MessageQueue(MessageQueue const&) = delete;
  MessageQueue& operator=(MessageQueue const&) = delete;

  /// Returns false if the queue is full.
  virtual bool push(std::string const& line);

  /// Waits for a line. Returns false when finish() has been called and no line is left.
  virtual bool pop(std::string& line);

  virtual void finish();

 protected:
  static constexpr std::size_t most = 10000;  ///< bounded: a client that does not read must not cost more
  std::deque<std::string> lines_;
  pthread_mutex_t lock_{};
  sem_t waiting_{};
};

class Room {
 public:
  explicit Room(std::string name);
  virtual ~Room();
  Room(Room const&) = delete;
  Room& operator=(Room const&) = delete;

  [[nodiscard]] std::string const& name() const { return name_; }

  /// Adds a receiver and sends it its ok: no text comes between the two.
  virtual void add(Client& receiver);
  virtual void remove(Client& receiver);

  /// Sends a line to those receivers for whom reaches() is true. All receivers see one order.
  virtual void deliver(std::string const& line, std::function<bool(Client const&)> const& reaches);

 protected:
  std::string name_;
  std::set<Client*> receivers_;
  pthread_mutex_t lock_{};
};

class Server {
 public:
  using MakeClient = std::function<std::unique_ptr<Client>(Server& server, int connection)>;
  using MakeRoom = std::function<std::unique_ptr<Room>(std::string const& name)>;

  explicit Server(MakeClient make_client, MakeRoom make_room = {});
  virtual ~Server();
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;

  /// Accepts clients, and returns only with an exit code.
  int serve(std::string const& port);

  /// The room of this name, made if it does not exist. Rooms stay.
  virtual Room& room(std::string const& name);

  /// Calls a function with each room.
  void each_room(std::function<void(Room&)> const& call);

  double login_deadline = 10;  ///< in seconds

 protected:
  static void* client_thread(void* client);

  MakeClient make_client_;
  MakeRoom make_room_;
  std::map<std::string, std::unique_ptr<Room>> rooms_;
  pthread_mutex_t lock_{};
};

class Client {
 public:
  Client(Server& server, int connection);
  virtual ~Client();  ///< closes the connection
  Client(Client const&) = delete;
  Client& operator=(Client const&) = delete;

  /// Serves the client until it has gone.
  virtual void run();

  /// Sends a line, without its end: at once to a sender, by its queue to a receiver. Another thread may call it for a
  /// receiver that is in a room.
  virtual void send(std::string const& line);
  virtual void reply(std::string const& tag, std::string const& text = "");

  [[nodiscard]] std::string const& name() const { return name_; }

 protected:
  // Bytes and lines
  virtual std::string read();  ///< what has come; empty at the end, and when the login deadline is over
  virtual void write_all(std::string const& bytes);
  virtual void read_lines();
  virtual void write_lines();  ///< the thread that writes a receiver's queue
  virtual std::string without_end(std::string const& line);
  virtual void forget();   ///< leaves its room
  virtual void hang_up();  ///< ends the connection so that the client gets all that was written
  virtual std::unique_ptr<MessageQueue> make_queue();

  // Messages
  virtual void on_line(std::string const& line);
  virtual void on_message(std::string const& tag, std::string const& payload);
  virtual void bad_line(std::string const& why);
  virtual void unknown(std::string const& tag);
  virtual void refuse(std::string const& why);  ///< an err that ends the connection
  virtual void log_in(std::string const& tag, std::string const& payload);
  [[nodiscard]] virtual bool is_name(std::string const& text) const;
  virtual void join(std::string const& room);
  virtual void leave(std::string const& payload);
  virtual void quit();
  virtual void sendall(std::string const& text);
  virtual void senduser(std::string const& payload);
  virtual void deliver(std::string const& text, std::function<bool(Client const&)> const& reaches);

  static void* writer_thread(void* client);

  enum class Role { none, sender, receiver };
  std::size_t longest_ = 255;  ///< of a line, including its end
  std::size_t longest_delivery_ = 255;
  Server& server_;
  int connection_;
  Role role_ = Role::none;
  std::string name_;
  Room* room_ = nullptr;
  bool closing_ = false;                 ///< after its quit, or an err that ends it
  std::unique_ptr<MessageQueue> queue_;  ///< of a receiver
  pthread_t writer_{};                   ///< of a receiver
  double login_until_;
};

/// `PROGRAM PORT [LOGIN_DEADLINE]`, the deadline in seconds.
int serve(int argc, char** argv, Server& server);

/// The same for a server whose clients and rooms are of these classes.
template <class OfClient = Client, class OfRoom = Room>
int serve(int argc, char** argv) {
  Server server([](Server& owner, int connection) { return std::make_unique<OfClient>(owner, connection); },
                [](std::string const& name) { return std::make_unique<OfRoom>(name); });
  return serve(argc, argv, server);
}

}  // namespace student
