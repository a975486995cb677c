// SPDX-License-Identifier: BSL-1.0
// The core of the library needs only the standard library.
#include <chatproto/backplane.hpp>
#include <chatproto/chat_service.hpp>
#include <chatproto/detail/backplane/backplane_rules.hpp>
#include <chatproto/detail/backplane/block.hpp>
#include <chatproto/detail/backplane/inbox.hpp>
#include <chatproto/detail/backplane/request.hpp>
#include <chatproto/detail/redis/redis_scripts.hpp>
#include <chatproto/detail/server/events.hpp>
#include <chatproto/detail/server/handler_memory.hpp>
#include <chatproto/detail/server/link_rules.hpp>
#include <chatproto/detail/server/near_misses.hpp>
#include <chatproto/detail/sqlite/history_queue.hpp>
#include <chatproto/error.hpp>
#include <chatproto/history_store.hpp>
#include <chatproto/layer.hpp>
#include <chatproto/line_reader.hpp>
#include <chatproto/login.hpp>
#include <chatproto/message.hpp>
#include <chatproto/message_queue.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/redis_options.hpp>
#include <chatproto/room.hpp>
#include <chatproto/room_log.hpp>
#include <chatproto/room_table.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/testing.hpp>
#include <chatproto/testing/history.hpp>
#include <chatproto/token_bucket.hpp>
#include <chatproto/version.hpp>

// Every Asio header includes one of these two.
#if defined(ASIO_DETAIL_CONFIG_HPP) || defined(ASIO_VERSION_HPP)
#error "a header that should need the standard library only includes Asio"
#endif
