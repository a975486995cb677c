// SPDX-License-Identifier: BSL-1.0
#include "process.hpp"

#include <csignal>
#include <system_error>

#if defined(__unix__) || defined(__APPLE__)

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/write.hpp>

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX requires this

// NOLINTBEGIN(cppcoreguidelines-pro-type-vararg): open() and fcntl() have such signatures

namespace conformance {
namespace {

[[noreturn]] void fail(char const* what, int error = errno) {
  throw std::system_error(error, std::generic_category(), what);
}

/// An open file that is closed in the end and not inherited by programs.
class File {
 public:
  File() = default;
  explicit File(int number) : number_(number) {
    if (number_ < 0) fail("open");
    ::fcntl(number_, F_SETFD, FD_CLOEXEC);
  }
  File(File&& other) noexcept : number_(other.release()) {}
  File& operator=(File&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  File(File const&) = delete;
  File& operator=(File const&) = delete;
  ~File() {
    if (number_ >= 0) ::close(number_);
  }

  [[nodiscard]] int number() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

struct Pipe {
  File from, to;

  static Pipe make() {
    int ends[2];
    if (::pipe(ends) != 0) fail("pipe");
    return {File(ends[0]), File(ends[1])};
  }
};

/// A terminal that passes bytes unchanged: no echo, no signals, no translation of line ends.
struct Pty {
  File ours, theirs;

  static Pty make() {
    Pty pty;
    pty.ours = File(::posix_openpt(O_RDWR | O_NOCTTY));
    if (::grantpt(pty.ours.number()) != 0 || ::unlockpt(pty.ours.number()) != 0) fail("unlockpt");
    char const* const name = ::ptsname(pty.ours.number());  // NOLINT(concurrency-mt-unsafe): there is one thread
    if (name == nullptr) fail("ptsname");
    pty.theirs = File(::open(name, O_RDWR | O_NOCTTY));
    termios settings{};
    if (::tcgetattr(pty.theirs.number(), &settings) != 0) fail("tcgetattr");
    settings.c_iflag = 0;
    settings.c_oflag = 0;
    settings.c_lflag = ICANON;  // lines, with control-D for the end of input
    if (::tcsetattr(pty.theirs.number(), TCSANOW, &settings) != 0) fail("tcsetattr");
    return pty;
  }
};

class FileChannel : public Channel {
 public:
  FileChannel(asio::any_io_executor const& executor, File file, bool terminal)
      : file_(executor, file.release()), terminal_(terminal) {}

  void read(char* data, std::size_t size, Done done) override {
    file_.async_read_some(asio::buffer(data, size),
                          [done = std::move(done)](std::error_code const& error, std::size_t n) {
                            // A terminal whose other side is closed reports EIO.
                            done(error.value() == EIO ? asio::error::eof : error, n);
                          });
  }

  void write(std::string_view bytes, Done done) override {
    asio::async_write(file_, asio::buffer(bytes.data(), bytes.size()), std::move(done));
  }

  void finish() override {
    std::error_code ignored;
    if (terminal_)
      file_.write_some(asio::buffer("\x04", 1), ignored);
    else
      file_.close(ignored);
  }

  void close() override {
    std::error_code ignored;
    file_.close(ignored);
  }

 private:
  asio::posix::stream_descriptor file_;
  bool terminal_;
};

class PosixProcess final : public Process {
 public:
  explicit PosixProcess(pid_t id) : id_(id) {}

  ~PosixProcess() override {
    if (poll()) return;
    ::kill(id_, SIGKILL);
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
  }

  std::optional<End> poll() override {
    int status = 0;
    if (!end_ && ::waitpid(id_, &status, WNOHANG) == id_) {
      if (WIFEXITED(status)) end_ = End{WEXITSTATUS(status), 0};
      if (WIFSIGNALED(status)) end_ = End{0, WTERMSIG(status)};
    }
    return end_;
  }

  void signal(int number) override {
    if (!poll()) ::kill(id_, number);
  }

 private:
  pid_t id_;
  std::optional<End> end_;
};

/// The three files become the program's 0, 1 and 2.
std::unique_ptr<PosixProcess> spawn(std::vector<std::string> const& arguments, int in, int out, int err) {
  std::vector<std::string> copies = arguments;  // posix_spawn() does not promise not to change them
  std::vector<char*> argv(copies.size() + 1, nullptr);
  std::transform(copies.begin(), copies.end(), argv.begin(), [](std::string& copy) { return copy.data(); });

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, in, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out, 1);
  ::posix_spawn_file_actions_adddup2(&actions, err, 2);
  sigset_t as_usual;  // the runner ignores SIGPIPE; the program decides for itself
  ::sigemptyset(&as_usual);
  ::sigaddset(&as_usual, SIGPIPE);
  ::posix_spawnattr_setsigdefault(&attributes, &as_usual);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t id = 0;
  int const error = ::posix_spawnp(&id, argv.front(), &actions, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) fail(arguments.front().c_str(), error);
  return std::make_unique<PosixProcess>(id);
}

}  // namespace

bool can_start_programs() { return true; }

void keep_from_programs(int handle) { ::fcntl(handle, F_SETFD, FD_CLOEXEC); }

std::unique_ptr<Process> start_program(asio::any_io_executor const& executor, std::vector<std::string> const& arguments,
                                       Terminal terminal) {
  std::signal(SIGPIPE, SIG_IGN);  // so that a write to a program that has ended is only an error
  Pipe in = Pipe::make();
  Pipe out = Pipe::make();
  Pipe err = Pipe::make();
  bool const terminal_in = terminal == Terminal::in || terminal == Terminal::both;
  bool const terminal_out = terminal == Terminal::out || terminal == Terminal::both;
  if (terminal != Terminal::none) {
    Pty pty = Pty::make();
    if (terminal_in) in = {File(::dup(pty.theirs.number())), File(::dup(pty.ours.number()))};
    if (terminal_out) out = {std::move(pty.ours), std::move(pty.theirs)};
  }
  std::unique_ptr<Process> process = spawn(arguments, in.from.number(), out.to.number(), err.to.number());
  process->in = std::make_unique<FileChannel>(executor, std::move(in.to), terminal_in);
  process->out = std::make_unique<FileChannel>(executor, std::move(out.from), terminal_out);
  process->err = std::make_unique<FileChannel>(executor, std::move(err.from), false);
  return process;
}

std::unique_ptr<Process> start_server(std::vector<std::string> const& arguments) {
  File const nothing(::open("/dev/null", O_RDWR));
  return spawn(arguments, nothing.number(), STDERR_FILENO, STDERR_FILENO);
}

}  // namespace conformance

// NOLINTEND(cppcoreguidelines-pro-type-vararg)

#else

namespace conformance {

bool can_start_programs() { return false; }

void keep_from_programs(asio::ip::tcp::socket::native_handle_type) {}

std::unique_ptr<Process> start_program(asio::any_io_executor const&, std::vector<std::string> const&, Terminal) {
  throw std::system_error(std::make_error_code(std::errc::function_not_supported), "start a program");
}

std::unique_ptr<Process> start_server(std::vector<std::string> const&) {
  throw std::system_error(std::make_error_code(std::errc::function_not_supported), "start a server");
}

}  // namespace conformance

#endif
