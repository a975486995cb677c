// SPDX-License-Identifier: BSL-1.0
/// @file
/// The scripts that Redis runs: each is one step for all servers.
#pragma once

#include <string_view>

namespace chatproto::detail {

// A room has two keys with one hash tag: a stream of blocks whose IDs are their numbers, and a hash. The hash has the
// incarnation of the log (i), the number of its last block (n), the average size of a block (a), and for each server
// what it has stored last, so that a second attempt does not store it twice: its sequence number and the block's
// number. These belong to the hash, because they must not be forgotten (evicted, for example) as long as the
// incarnation is remembered. If there are many, those that were used least recently are dropped.

/// KEYS: hash, stream. ARGV: the server's sequence number; the incarnation that it must be, or nothing; block; channel;
/// the stream's bytes and seconds; the hash's seconds; the server's name.
/// Returns the outcome and the incarnation.
inline constexpr std::string_view append_script = R"lua(
local block = ARGV[3]
local known = redis.call('HMGET', KEYS[1], 'i', ARGV[8])
local incarnation, last = known[1], known[2]
if last and tonumber(string.match(last, '%d+')) >= tonumber(ARGV[1]) then return {'stored', incarnation} end
if ARGV[2] ~= '' and ARGV[2] ~= incarnation then return {'unknown', '0'} end
if not incarnation then
  local now = redis.call('TIME')
  incarnation = now[1] .. string.format('%06d', now[2])
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'i', incarnation)
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
local id = string.format('%.0f', number)
redis.call('XADD', KEYS[2], id .. '-0', 'b', block)
redis.call('HSET', KEYS[1], ARGV[8], ARGV[1] .. ' ' .. id)
if not last and redis.call('HLEN', KEYS[1]) > 1000 then
  local servers, all = {}, redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local block_number = string.match(all[i + 1], ' (%d+)')
    if block_number then table.insert(servers, {tonumber(block_number), all[i]}) end
  end
  table.sort(servers, function(one, other) return one[1] < other[1] end)
  for i = 1, #servers / 2 do redis.call('HDEL', KEYS[1], servers[i][2]) end
end
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

/// KEYS: hash, stream. ARGV: incarnation and number of the last block that is known, or nothing; the most blocks that
/// it reads at once; the hash's seconds; 1 if a log may begin; if no block is known, the most blocks and bytes of what
/// was said last. Returns the log's incarnation and last number, whether the log has begun now, then the blocks after
/// the known one, or the last ones. Begins a log, so that whoever looks knows an incarnation; if it must not, and there
/// is none, returns nothing.
inline constexpr std::string_view look_script = R"lua(
local incarnation = redis.call('HGET', KEYS[1], 'i')
local begins = not incarnation
if begins and ARGV[5] ~= '1' then return {} end
if begins then
  local now = redis.call('TIME')
  incarnation = now[1] .. string.format('%06d', now[2])
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'i', incarnation, 'n', '0')
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
local result = {incarnation, redis.call('HGET', KEYS[1], 'n'), begins and '1' or '0'}
if ARGV[1] == '' then
  local most, bytes, number, from = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(result[2]), '+'
  local last = {}
  while #last < most and bytes > 0 do
    local found = redis.call('XREVRANGE', KEYS[2], from, '-', 'COUNT', math.min(most - #last, ARGV[3]))
    for _, entry in ipairs(found) do
      if bytes <= 0 or entry[1] ~= string.format('%.0f', number) .. '-0' then break end
      table.insert(last, entry[2][2])
      bytes = bytes - #entry[2][2]
      number = number - 1
    end
    from = string.format('%.0f', number)
    if #found == 0 or found[#found][1] ~= string.format('%.0f', number + 1) .. '-0' then break end
  end
  for i = #last, 1, -1 do table.insert(result, last[i]) end
end
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
