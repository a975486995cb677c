// SPDX-License-Identifier: BSL-1.0
/// @file
/// Includes all of chatproto, except `testing.hpp`, `compiled.hpp`, `tls.hpp` and `password_file.hpp`.
#pragma once

#include <chatproto/address_limits.hpp>
#include <chatproto/address_list.hpp>
#include <chatproto/chat_service.hpp>
#include <chatproto/connection.hpp>
#include <chatproto/error.hpp>
#include <chatproto/executor.hpp>
#include <chatproto/history_limits.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/listen.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/room.hpp>
#include <chatproto/room_log.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/server.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/stop_on_signals.hpp>
#include <chatproto/threading.hpp>
#include <chatproto/token_bucket.hpp>
#include <chatproto/version.hpp>
