// SPDX-License-Identifier: BSL-1.0
// bench_load HOST PORT: loads a chat server with rooms full of clients, checks each delivery, and prints its
// measurements as one line of JSON. Linux only: epoll, /proc.
//
// The loop is closed: a sender waits when it has a window of unacknowledged texts, a room when its receivers lag. So
// the server's queues stay short. One thread does everything and compares each whole line with the expected one: some
// 25 ns for a delivery of 90 bytes. In the fan-outs this core is the limit (load_cpu_share is near 1), not the
// server's: there CPU per delivery is the figure to read, not deliveries per second.
#include <exception>
#include <limits>
#include <stdexcept>

#include "../../examples/descriptors.hpp"
#include "../../examples/program.hpp"
#include "load.hpp"

int main(int argc, char** argv) {
  load::Options options;
  CLI::App app("Loads a chat server, checks each delivery and prints what it measured, as JSON.", "bench_load");
  auto const number = [&app](char const* option, auto& value, std::uint64_t least, std::uint64_t most,
                             char const* description) {
    app.add_option(option, value, description)->check(program::decimal(least, most))->capture_default_str();
  };
  app.add_option("HOST", options.host, "Name or address of the server")->required();
  app.add_option("PORT", options.port, "Its TCP port")->required()->check(program::decimal(1, 65535));
  number("--rooms", options.rooms, 1, 99'999, "Rooms");
  number("--senders", options.senders, 0, 99'999, "Senders in each room");
  number("--receivers", options.receivers, 0, 99'999, "Receivers in each room");
  number("--slow", options.slow, 0, 99'999,
         "Further receivers, in all, that join and then never read; one is replaced every 50 ms");
  number("--text", options.text, 20, load::longest_text, "Bytes of a text");
  number("--window", options.window, 1, 65'536, "Maximum number of unacknowledged texts of a sender");
  number("--lag", options.lag, 1, 65'536, "Maximum number of texts of a room that some receiver does not yet have");
  program::add_seconds(app, "--seconds", options.seconds, "Time to measure");
  program::add_seconds(app, "--warmup", options.warmup, "Time to send before measuring");
  number("--count", options.count, 1, 1'000'000'000,
         "Measure this number of texts, of all senders together, instead of a time");
  app.add_flag("--idle", options.idle, "Only connect, log in and join; send no texts");
  app.add_flag("--spin", options.spin, "Poll instead of sleeping, for the least latency");
  number("--pid", options.pid, 1, std::numeric_limits<int>::max(), "The server's process, for its CPU time and memory");
  try {
    app.parse(argc, argv);
    if (options.clients() == 0 || (!options.idle && (options.senders == 0 || options.receivers == 0)))
      throw CLI::ValidationError("there must be senders and receivers, or --idle and either");
    if (std::uint64_t{options.rooms} * std::max(options.senders, options.receivers) > 99'999)
      throw CLI::ValidationError("there can be 99999 senders and as many receivers at most");
    if (options.seconds < std::chrono::milliseconds(50)) throw CLI::ValidationError("--seconds must be at least 0.05");
    if (options.pid != 0 && !crowd::usage_of(options.pid))
      throw CLI::ValidationError("there is no process " + std::to_string(options.pid));
    constexpr std::uint64_t others = 16;
    if (auto const descriptors = program::raise_descriptor_limit(); options.clients() + others > descriptors)
      throw std::runtime_error(std::to_string(options.clients()) + " clients do not fit: this process may have " +
                               std::to_string(descriptors) + " descriptors (ulimit -Hn)");
    auto const result = load::run(options);
    program::print_or_fail(load::to_json(options, result));
    return result.is_good() ? 0 : 1;
  } catch (CLI::Success const& help) {
    return app.exit(help);
  } catch (CLI::ParseError const& error) {
    program::complain("bench_load: " + program::visible(error.what()) + " (see --help)");
    return 2;
  } catch (std::exception const& error) {
    program::complain("bench_load: " + program::visible(error.what()));
    return 1;
  }
}
