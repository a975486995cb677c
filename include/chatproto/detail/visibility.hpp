// SPDX-License-Identifier: BSL-1.0
/// @file
/// `CHATPROTO_ONE_PER_PROCESS`, for what all shared libraries of a process must share.
#pragma once

// With -fvisibility=hidden each shared library would have its own copy of an inline function's static variables.
#if defined(__GNUC__) && !defined(_WIN32)
#define CHATPROTO_ONE_PER_PROCESS __attribute__((visibility("default")))
#else
#define CHATPROTO_ONE_PER_PROCESS
#endif
