// SPDX-License-Identifier: BSL-1.0
#include <chatproto/chatproto.hpp>

// Every OpenSSL header includes this one.
#ifdef OPENSSL_MACROS_H
#error "chatproto.hpp includes OpenSSL, which only chatproto/tls.hpp may"
#endif
#ifdef SQLITE_VERSION
#error "chatproto.hpp includes SQLite, which only chatproto/sqlite_history.hpp may"
#endif
#if defined(WSLAY_H) || defined(http_parser_h)
#error "chatproto.hpp includes wslay or http-parser, which only chatproto/websocket.hpp may"
#endif
#ifdef __HIREDIS_H
#error "chatproto.hpp includes hiredis, which only chatproto/redis.hpp may"
#endif

template class chatproto::Server<chatproto::StrandPool>;

chatproto::Server<chatproto::StrandPool>* other_server();
std::error_category const& other_category();

chatproto::Server<chatproto::StrandPool>* other_server() { return nullptr; }
std::error_category const& other_category() { return chatproto::chatproto_category(); }
