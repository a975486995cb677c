// SPDX-License-Identifier: BSL-1.0
/// @file
/// The version of the library. These three numbers are its only source; the build reads them from here.
#pragma once

/// Changes when users must change their code. While it is 0, the minor version does so instead.
#define CHATPROTO_VERSION_MAJOR 0
/// Changes with new features.
#define CHATPROTO_VERSION_MINOR 1
/// Changes with corrections.
#define CHATPROTO_VERSION_PATCH 0

/// The version as one number for comparison in `#if`: 10000 * major + 100 * minor + patch.
#define CHATPROTO_VERSION (CHATPROTO_VERSION_MAJOR * 10000 + CHATPROTO_VERSION_MINOR * 100 + CHATPROTO_VERSION_PATCH)
