// SPDX-License-Identifier: BSL-1.0
/// @file
/// The scripts that Redis runs: each is one step for all servers.
#pragma once

#include <string_view>

namespace chatproto::detail {

// A room has three keys with one hash tag: a hash (i: the incarnation of its log, n: the number of its last block, a:
// the average size of a block), a stream of blocks whose IDs are their numbers, and for each server a counter of what
// that server has stored last, so that a second attempt does not store it twice.

/// KEYS: hash, stream, the server's counter. ARGV: the server's sequence number; the incarnation that it must be, or
/// nothing; block; channel; the stream's bytes and seconds; the hash's seconds; the counter's seconds.
/// Returns the outcome and the incarnation.
inline constexpr std::string_view append_script = R"lua(
local sequence, block = tonumber(ARGV[1]), ARGV[3]
local incarnation = redis.call('HGET', KEYS[1], 'i')
if tonumber(redis.call('GET', KEYS[3]) or '0') >= sequence then return {'stored', incarnation or '0'} end
if ARGV[2] ~= '' and ARGV[2] ~= incarnation then return {'unknown', '0'} end
if not incarnation then
  local now = redis.call('TIME')
  incarnation = now[1] .. string.format('%06d', now[2])
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'i', incarnation)
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
local id = string.format('%.0f', number)
redis.call('XADD', KEYS[2], id .. '-0', 'b', block)
redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[8])
if number % 16 == 0 then
  local average = tonumber(redis.call('HGET', KEYS[1], 'a') or #block)
  average = average + (#block - average) / 8
  redis.call('HSET', KEYS[1], 'a', string.format('%.0f', average))
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', string.format('%.0f', math.ceil(ARGV[5] / (average + 32))))
end
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('PUBLISH', ARGV[4], incarnation .. ' ' .. id .. '\n' .. block)
return {'stored', incarnation}
)lua";

/// KEYS: hash, stream. ARGV: incarnation and number of the last block that is known, or nothing; the most blocks; the
/// hash's seconds. Returns the log's incarnation and last number, then the blocks after the known one. Begins a log, so
/// that whoever looks knows an incarnation.
inline constexpr std::string_view look_script = R"lua(
local incarnation = redis.call('HGET', KEYS[1], 'i')
if not incarnation then
  local now = redis.call('TIME')
  incarnation = now[1] .. string.format('%06d', now[2])
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'i', incarnation, 'n', '0')
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
local result = {incarnation, redis.call('HGET', KEYS[1], 'n')}
if ARGV[1] ~= incarnation then return result end
local next = tonumber(ARGV[2]) + 1
local found = redis.call('XRANGE', KEYS[2], string.format('%.0f', next), '+', 'COUNT', ARGV[3])
for _, entry in ipairs(found) do
  if entry[1] ~= string.format('%.0f', next) .. '-0' then break end
  table.insert(result, entry[2][2])
  next = next + 1
end
return result
)lua";

/// KEYS: the list of Redis servers that servers have here. ARGV: this server's list; channel; the beat; how many
/// seconds the list holds. Publishes the beat, or returns another server's list that differs. It must not fail if Redis
/// is full.
inline constexpr std::string_view beat_script = R"lua(
local list = redis.call('GET', KEYS[1])
if list and list ~= ARGV[1] then return list end
redis.call('PUBLISH', ARGV[2], ARGV[3])
redis.pcall('SET', KEYS[1], ARGV[1], 'EX', ARGV[4])
return 1
)lua";

}  // namespace chatproto::detail
