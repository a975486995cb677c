// SPDX-License-Identifier: BSL-1.0
#include "load.hpp"

#include <initializer_list>
#include <iomanip>
#include <sstream>
#include <utility>

std::string load::to_json(Options const& options, Result const& result) {
  auto const& first = result.at_first;
  auto const& joined = result.joined;
  auto const& last = result.last;
  auto const known = first && joined && last;
  auto const us = [](std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e3; };
  auto const cpu = us(result.server_cpu);
  auto const clients = static_cast<double>(options.clients());
  std::ostringstream out;
  out << std::setprecision(6);
  auto const field = [&](char const* key, auto const& value) {
    out << (out.tellp() == 0 ? "{\"" : ", \"") << key << "\": " << value;
  };
  auto const measured = [&](char const* key, bool is_known, double value) {  // null if it is not known
    std::ostringstream text;
    text << std::setprecision(6) << value;
    field(key, is_known ? text.str() : "null");
  };
  auto const numbers = [&](std::initializer_list<std::pair<char const*, uint64_t>> all) {
    for (auto const& [key, value] : all) field(key, value);
  };
  numbers({{"rooms", options.rooms}, {"senders", options.senders}, {"receivers", options.receivers}});
  numbers({{"slow", options.slow}, {"clients", options.clients()}, {"text", options.text}});
  numbers({{"window", options.window}, {"lag", options.lag}, {"count", options.count}});
  field("warmup", std::chrono::duration<double>(options.warmup).count());
  field("idle", options.idle ? "true" : "false");
  field("spin", options.spin ? "true" : "false");
  field("tls", options.tls ? "true" : "false");
  field("websocket", options.websocket ? "true" : "false");
  field("interval", std::chrono::duration<double>(options.interval).count());
  field("storm", options.storm);
  field("seconds", result.seconds);
  numbers({{"handshakes", result.handshakes.done}, {"failed_handshakes", result.handshakes.failed}});
  numbers({{"deliveries", result.deliveries}, {"messages", result.messages}});
  auto const deliveries = static_cast<double>(result.deliveries);
  auto const messages = static_cast<double>(result.messages);
  measured("deliveries_per_second", result.seconds > 0, deliveries / result.seconds);
  measured("messages_per_second", result.seconds > 0, messages / result.seconds);
  measured("cpu_us_per_delivery", known && result.deliveries > 0, cpu / deliveries);
  measured("cpu_us_per_message", known && result.messages > 0, cpu / messages);
  measured("engine_cpu_us_per_message", !options.engine_pids.empty() && result.messages > 0,
           us(result.engine_cpu) / messages);
  measured("engine_cpu_share", !options.engine_pids.empty() && result.seconds > 0,
           us(result.engine_cpu) / 1e6 / result.seconds);
  auto const handshakes = static_cast<double>(result.handshakes.done);
  measured("cpu_us_per_handshake", known && options.handshakes > 0 && handshakes > 0, cpu / handshakes);
  measured("server_cpu_share", known && result.seconds > 0, cpu / 1e6 / result.seconds);
  measured("load_cpu_share", result.seconds > 0, us(result.own_cpu) / 1e6 / result.seconds);
  out << ", \"latency_us\": [";
  if (!result.latency.empty())
    for (auto const percent : {1., 5., 10., 25., 50., 75., 90., 95., 99., 99.9, 100.})
      out << (percent == 1 ? "[" : ", [") << percent << ", " << result.latency.percentile(percent) << ']';
  out << ']';
  measured("ack_us_p50", !result.ack.empty(), result.ack.percentile(50));
  measured("ack_us_p99", !result.ack.empty(), result.ack.percentile(99));
  measured("rss_bytes_per_client", known, known ? (joined->resident_kib - first->resident_kib) * 1024 / clients : 0);
  measured("login_cpu_us", known, known ? us(joined->cpu - first->cpu) / clients : 0);
  measured("peak_rss_growth_kb", known, known ? std::max(last->peak_kib - joined->resident_kib, 0.) : 0);
  numbers({{"lost", result.lost}, {"misordered", result.misordered}, {"corrupt", result.corrupt}});
  numbers({{"errors", result.errors}, {"unacknowledged", result.unacknowledged}});
  numbers({{"slow_joined", result.slow_joined}, {"slow_cut", result.slow_cut}});
  return out.str() + '}';
}
