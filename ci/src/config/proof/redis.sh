set -eu
client=$(command -v redis-cli || command -v valkey-cli)
if [ -n "${REDIS_PASSWORD:-}" ]; then export REDISCLI_AUTH="$REDIS_PASSWORD"; fi
# An error is printed as an answer; without a server the client fails.
"$client" PING
"$client" INFO keyspace | tr -d '\r' | sed -n 's/^db\([0-9]*\):\(keys=[0-9]*,expires=[0-9]*\).*/\1 \2/p' | while read -r db counts; do
  echo "database $db $counts"
  # Keys and values as a sum that no order within sets and hashes changes.
  "$client" -n "$db" EVAL '
    local cursor, sums = "0", {}
    local function sorted(items, step)
      local lines = {}
      for place = 1, #items, step do lines[#lines + 1] = table.concat(items, "\0", place, place + step - 1) end
      table.sort(lines)
      return table.concat(lines, "\1")
    end
    local read = {
      string = function(key) return redis.call("GET", key) end,
      list = function(key) return table.concat(redis.call("LRANGE", key, 0, -1), "\0") end,
      set = function(key) return sorted(redis.call("SMEMBERS", key), 1) end,
      hash = function(key) return sorted(redis.call("HGETALL", key), 2) end,
      zset = function(key) return table.concat(redis.call("ZRANGE", key, 0, -1, "WITHSCORES"), "\0") end,
    }
    repeat
      local page = redis.call("SCAN", cursor, "COUNT", 1000)
      cursor = page[1]
      for _, key in ipairs(page[2]) do
        local kind = redis.call("TYPE", key).ok
        local value = read[kind] and read[kind](key) or redis.call("DUMP", key)
        local expires = redis.call("PTTL", key) >= 0 and "expires" or ""
        sums[#sums + 1] = redis.sha1hex(table.concat({ key, kind, expires, value }, "\0"))
      end
    until cursor == "0"
    table.sort(sums)
    return redis.sha1hex(table.concat(sums))
  ' 0
done
# A name and its value in turns, in an order that each server chooses anew.
"$client" CONFIG GET '*' | paste -d = - - | LC_ALL=C sort
"$client" ACL LIST
