// SPDX-License-Identifier: BSL-1.0
// bench_load HOST PORT: loads a chat server with rooms full of clients, checks each delivery, and prints its
// measurements as one line of JSON. Linux only: epoll, /proc.
//
// The loop is closed: a sender waits when it has a window of unacknowledged texts, a room when its receivers lag. So
// the server's queues stay short. One thread does everything and compares each whole line with the expected one: some
// 25 ns for a delivery of 90 bytes. In the fan-outs this core is the limit (load_cpu_share is near 1), not the
// server's: there CPU per delivery is the figure to read, not deliveries per second.
#include <csignal>
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
  app.add_option(
         "--also", options.also,
         "TCP port of a further server of the same cluster, on this host; a room's clients are dealt out in turn")
      ->check(program::decimal(1, 65535));
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
  app.add_flag("--tls", options.tls, "Connect over TLS 1.3 and trust any certificate");
  app.add_flag("--websocket", options.websocket, "Speak WebSocket, in binary frames");
  program::add_seconds(app, "--interval", options.interval,
                       "Time from one text of a sender to its next, instead of as fast as possible; 0 is none");
  number("--handshakes", options.handshakes, 1, 1'000'000,
         "Measure only this number of TLS handshakes, each of a client that then closes");
  number("--at-once", options.at_once, 1, 10'000, "Handshakes that are under way at the same time");
  number("--storm", options.storm, 1, 10'000,
         "Measure while this number of other clients, all at once, connect over TLS, shake hands and close");
  app.add_option("--pid", options.pids, "A process of the server, for CPU time and memory; several are added up")
      ->check(program::decimal(1, std::numeric_limits<int>::max()));
  app.add_option("--engine-pid", options.engine_pids,
                 "A process between the servers, whose CPU time is shown apart; several are added up")
      ->check(program::decimal(1, std::numeric_limits<int>::max()));
  try {
    app.parse(argc, argv);
    if (options.clients() == 0 || (!options.idle && (options.senders == 0 || options.receivers == 0)))
      throw CLI::ValidationError("there must be senders and receivers, or --idle and either");
    if (std::uint64_t{options.rooms} * std::max(options.senders, options.receivers) > 99'999)
      throw CLI::ValidationError("there can be 99999 senders and as many receivers at most");
    if (options.seconds < std::chrono::milliseconds(50)) throw CLI::ValidationError("--seconds must be at least 0.05");
    if (options.storm > 0 && (options.count > 0 || options.idle))
      throw CLI::ValidationError("--storm goes with neither --count nor --idle");
    if (!options.tls && options.handshakes + options.storm > 0)
      throw CLI::ValidationError("--handshakes and --storm need --tls");
    if (!options.also.empty() && options.handshakes + options.storm > 0)
      throw CLI::ValidationError("--handshakes and --storm go with one server only");
    for (auto const& pids : {options.pids, options.engine_pids})
      for (auto const pid : pids)
        if (!crowd::usage_of(pid)) throw CLI::ValidationError("there is no process " + std::to_string(pid));
    constexpr std::uint64_t others = 16;
    auto const clients = options.handshakes > 0 ? options.at_once : options.clients() + options.storm;
    if (auto const descriptors = program::raise_descriptor_limit(); clients + others > descriptors)
      throw std::runtime_error(std::to_string(clients) + " clients do not fit: this process may have " +
                               std::to_string(descriptors) + " descriptors (ulimit -Hn)");
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL does not send with MSG_NOSIGNAL
    auto const result = load::run(options);
    if (result.handshakes.failed > 0)
      program::complain("bench_load: " + std::to_string(result.handshakes.failed) +
                        " handshakes failed, the first because of this: " + program::visible(result.handshakes.why));
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
