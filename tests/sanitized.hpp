// SPDX-License-Identifier: BSL-1.0
/// @file
/// CHATPROTO_SANITIZED: whether AddressSanitizer or ThreadSanitizer is enabled, which replace operator new.
#pragma once

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CHATPROTO_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define CHATPROTO_SANITIZED 1
#endif
#endif
#ifndef CHATPROTO_SANITIZED
#define CHATPROTO_SANITIZED 0
#endif
